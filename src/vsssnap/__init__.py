"""Consistent block-level images of live volumes: snapshot, read, store, verify, restore.

::

    from vsssnap import Snapshot, save_image

    with Snapshot("/srv/data") as s:
        save_image(s.open(), "data.raw")
"""

from __future__ import annotations

import logging

from vsssnap._inventory import list_snapshots as list_snapshots
from vsssnap._inventory import purge as purge
from vsssnap.blocks.extent import Extent as Extent
from vsssnap.blocks.extent import ExtentKind as ExtentKind
from vsssnap.blocks.reader import BlockReader as BlockReader
from vsssnap.blocks.reader import SupportsPread as SupportsPread
from vsssnap.consistency import Consistency as Consistency
from vsssnap.formats.base import Depth as Depth
from vsssnap.formats.base import Finding as Finding
from vsssnap.formats.base import ImageReader as ImageReader
from vsssnap.formats.base import ImageWriter as ImageWriter
from vsssnap.formats.base import SupportsWrite as SupportsWrite
from vsssnap.metadata import ImageMetadata as ImageMetadata
from vsssnap.metadata import WriterReport as WriterReport
from vsssnap.snapshot import Snapshot as Snapshot
from vsssnap.snapshot import SnapshotEvent as SnapshotEvent

__version__ = "0.1.0.dev0"

logging.getLogger("vsssnap").addHandler(logging.NullHandler())
