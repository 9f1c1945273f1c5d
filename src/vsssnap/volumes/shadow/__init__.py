"""Shadow copies as Windows stores them on a volume, read without Windows."""

from __future__ import annotations

from vsssnap.volumes.shadow.reader import BlockSource as BlockSource
from vsssnap.volumes.shadow.reader import ShadowReader as ShadowReader
from vsssnap.volumes.shadow.reader import SourceExtent as SourceExtent
from vsssnap.volumes.shadow.reader import UnusedBlocks as UnusedBlocks
from vsssnap.volumes.shadow.store import ShadowHealth as ShadowHealth
from vsssnap.volumes.shadow.store import ShadowStore as ShadowStore
from vsssnap.volumes.shadow.structs import ShadowAttributes as ShadowAttributes
from vsssnap.volumes.shadow.structs import ShadowFlags as ShadowFlags
from vsssnap.volumes.shadow.volume import ShadowVolume as ShadowVolume
