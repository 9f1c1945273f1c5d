"""What lies on a disk or volume, read through a `BlockReader`: partitions, LVM, file systems, shadows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap.volumes.base import FileSystem as FileSystem
from vsssnap.volumes.detect import filesystem as filesystem
from vsssnap.volumes.partitions import Partition as Partition
from vsssnap.volumes.partitions import Partitions as Partitions
from vsssnap.volumes.partitions import Scheme as Scheme
from vsssnap.volumes.policy import DEFAULT_EXCLUSIONS as DEFAULT_EXCLUSIONS
from vsssnap.volumes.policy import Exclusion as Exclusion
from vsssnap.volumes.policy import UnusedPolicy as UnusedPolicy
from vsssnap.volumes.viewing import view_of as view_of

if TYPE_CHECKING:
    from vsssnap.volumes.lvm import LogicalSegment as LogicalSegment
    from vsssnap.volumes.lvm import LogicalVolume as LogicalVolume
    from vsssnap.volumes.lvm import PhysicalVolume as PhysicalVolume
    from vsssnap.volumes.lvm import VolumeGroup as VolumeGroup
    from vsssnap.volumes.shadow import BlockSource as BlockSource
    from vsssnap.volumes.shadow import ShadowAttributes as ShadowAttributes
    from vsssnap.volumes.shadow import ShadowFlags as ShadowFlags
    from vsssnap.volumes.shadow import ShadowHealth as ShadowHealth
    from vsssnap.volumes.shadow import ShadowReader as ShadowReader
    from vsssnap.volumes.shadow import ShadowStore as ShadowStore
    from vsssnap.volumes.shadow import ShadowVolume as ShadowVolume
    from vsssnap.volumes.shadow import SourceExtent as SourceExtent
    from vsssnap.volumes.shadow import UnusedBlocks as UnusedBlocks

else:
    _LATER = {
        "LogicalSegment": "vsssnap.volumes.lvm",
        "LogicalVolume": "vsssnap.volumes.lvm",
        "PhysicalVolume": "vsssnap.volumes.lvm",
        "VolumeGroup": "vsssnap.volumes.lvm",
        "BlockSource": "vsssnap.volumes.shadow",
        "ShadowAttributes": "vsssnap.volumes.shadow",
        "ShadowFlags": "vsssnap.volumes.shadow",
        "ShadowHealth": "vsssnap.volumes.shadow",
        "ShadowReader": "vsssnap.volumes.shadow",
        "ShadowStore": "vsssnap.volumes.shadow",
        "ShadowVolume": "vsssnap.volumes.shadow",
        "SourceExtent": "vsssnap.volumes.shadow",
        "UnusedBlocks": "vsssnap.volumes.shadow",
    }

    def __getattr__(name: str) -> object:
        """Names whose modules are a tenth of the library's import, when they are asked for."""
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_LATER[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATER})
