"""The Volume Shadow Copy Service, beyond what `Snapshot` needs to be told.

::

    options = VssOptions(exclude_writers=("SqlServerWriter",))
    with Snapshot("C:", "D:", options=options) as s:
        ...
"""

from __future__ import annotations

from vsssnap.providers.vss.options import ComSecurity as ComSecurity
from vsssnap.providers.vss.options import VssOptions as VssOptions
