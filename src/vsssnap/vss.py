"""The Volume Shadow Copy Service, beyond what `Snapshot` does by itself.

::

    options = VssOptions(exclude_writers=("SqlServerWriter",))
    with Snapshot("C:", "D:", options=options) as s:
        ...
    for writer in list_writers():
        print(writer.name, writer.state, writer.message)
"""

from __future__ import annotations

from vsssnap.providers.vss.catalogue import WriterComponent as WriterComponent
from vsssnap.providers.vss.catalogue import list_components as list_components
from vsssnap.providers.vss.management import InstalledProvider as InstalledProvider
from vsssnap.providers.vss.management import ShadowStorage as ShadowStorage
from vsssnap.providers.vss.management import list_providers as list_providers
from vsssnap.providers.vss.management import list_writers as list_writers
from vsssnap.providers.vss.management import resize_shadow_storage as resize_shadow_storage
from vsssnap.providers.vss.management import shadow_storage as shadow_storage
from vsssnap.providers.vss.options import BackupKind as BackupKind
from vsssnap.providers.vss.options import ComponentSelection as ComponentSelection
from vsssnap.providers.vss.options import ComponentSelector as ComponentSelector
from vsssnap.providers.vss.options import ComSecurity as ComSecurity
from vsssnap.providers.vss.options import VssOptions as VssOptions
