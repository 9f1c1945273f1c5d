"""Consistent block-level images of live volumes: snapshot, read, store, verify, restore.

::

    from vsssnap import Snapshot, save_image

    with Snapshot("/srv/data") as s:
        save_image(s.open(), "data.raw")
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vsssnap._version import __version__ as __version__

if TYPE_CHECKING:
    from vsssnap._inventory import list_snapshots as list_snapshots
    from vsssnap._inventory import purge as purge
    from vsssnap.blocks.cow import CowVolume as CowVolume
    from vsssnap.blocks.cow import WhenFull as WhenFull
    from vsssnap.blocks.extent import Extent as Extent
    from vsssnap.blocks.extent import ExtentKind as ExtentKind
    from vsssnap.blocks.reader import BlockReader as BlockReader
    from vsssnap.blocks.reader import SupportsPread as SupportsPread
    from vsssnap.consistency import Consistency as Consistency
    from vsssnap.disk import DiskReader as DiskReader
    from vsssnap.disk import DiskSnapshot as DiskSnapshot
    from vsssnap.disk import Uncovered as Uncovered
    from vsssnap.disk import new_disk_id as new_disk_id
    from vsssnap.formats.base import Depth as Depth
    from vsssnap.formats.base import Finding as Finding
    from vsssnap.formats.base import ImageReader as ImageReader
    from vsssnap.formats.base import ImageWriter as ImageWriter
    from vsssnap.formats.base import SupportsWrite as SupportsWrite
    from vsssnap.imaging.comparing import compare_blocks as compare_blocks
    from vsssnap.imaging.copying import copy_blocks as copy_blocks
    from vsssnap.imaging.opening import create_image as create_image
    from vsssnap.imaging.opening import open_device as open_device
    from vsssnap.imaging.opening import open_image as open_image
    from vsssnap.imaging.planning import check_save as check_save
    from vsssnap.imaging.reports import CopyOptions as CopyOptions
    from vsssnap.imaging.reports import CopyReport as CopyReport
    from vsssnap.imaging.reports import OnReadError as OnReadError
    from vsssnap.imaging.reports import Progress as Progress
    from vsssnap.imaging.reports import VerifyReport as VerifyReport
    from vsssnap.imaging.restoring import restore_image as restore_image
    from vsssnap.imaging.saving import save_image as save_image
    from vsssnap.imaging.verifying import verify_image as verify_image
    from vsssnap.metadata import ImageMetadata as ImageMetadata
    from vsssnap.metadata import WriterReport as WriterReport
    from vsssnap.snapshot import Snapshot as Snapshot
    from vsssnap.snapshot import SnapshotEvent as SnapshotEvent
    from vsssnap.volumes.policy import DEFAULT_EXCLUSIONS as DEFAULT_EXCLUSIONS
    from vsssnap.volumes.policy import Exclusion as Exclusion
    from vsssnap.volumes.policy import UnusedPolicy as UnusedPolicy
    from vsssnap.volumes.wrapping import as_disk as as_disk
    from vsssnap.volumes.wrapping import from_disk as from_disk

else:
    # Most programs need a few of these: each comes with its module, when it is asked for.
    _HOMES = {
        name: module
        for module, names in {
            "vsssnap._inventory": ("list_snapshots", "purge"),
            "vsssnap.blocks.cow": ("CowVolume", "WhenFull"),
            "vsssnap.blocks.extent": ("Extent", "ExtentKind"),
            "vsssnap.blocks.reader": ("BlockReader", "SupportsPread"),
            "vsssnap.consistency": ("Consistency",),
            "vsssnap.disk": ("DiskReader", "DiskSnapshot", "Uncovered", "new_disk_id"),
            "vsssnap.formats.base": ("Depth", "Finding", "ImageReader", "ImageWriter", "SupportsWrite"),
            "vsssnap.imaging.comparing": ("compare_blocks",),
            "vsssnap.imaging.copying": ("copy_blocks",),
            "vsssnap.imaging.opening": ("create_image", "open_device", "open_image"),
            "vsssnap.imaging.planning": ("check_save",),
            "vsssnap.imaging.reports": (
                "CopyOptions",
                "CopyReport",
                "OnReadError",
                "Progress",
                "VerifyReport",
            ),
            "vsssnap.imaging.restoring": ("restore_image",),
            "vsssnap.imaging.saving": ("save_image",),
            "vsssnap.imaging.verifying": ("verify_image",),
            "vsssnap.metadata": ("ImageMetadata", "WriterReport"),
            "vsssnap.snapshot": ("Snapshot", "SnapshotEvent"),
            "vsssnap.volumes.policy": ("DEFAULT_EXCLUSIONS", "Exclusion", "UnusedPolicy"),
            "vsssnap.volumes.wrapping": ("as_disk", "from_disk"),
        }.items()
        for name in names
    }
    _MODULES = frozenset({"errors", "formats", "providers", "quiesce", "testing", "volumes", "vss"})
    __all__ = list(_HOMES)

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name in _MODULES:
            return import_module(f"vsssnap.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES, *_MODULES})


logging.getLogger("vsssnap").addHandler(logging.NullHandler())
