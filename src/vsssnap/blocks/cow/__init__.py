"""A volume that a program serves itself, with copy-on-write snapshots.

`volume` is the front (`CowVolume`), `engine` the mechanics, `chain` the bookkeeping, `store` the
shadow storage, `backing` what lies below, `snapshot` what is handed out.
"""

from __future__ import annotations

from vsssnap.blocks.cow.backing import SupportsBlockIO
from vsssnap.blocks.cow.engine import WhenFull
from vsssnap.blocks.cow.snapshot import CowSnapshot
from vsssnap.blocks.cow.volume import CowInstant, CowVolume

__all__ = ["CowInstant", "CowSnapshot", "CowVolume", "SupportsBlockIO", "WhenFull"]
