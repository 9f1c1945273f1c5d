"""The bitmaps of a store, read in segments so that memory does not grow with the volume."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from vsssnap.errors import CorruptImageError
from vsssnap.volumes.shadow.nodes import walk
from vsssnap.volumes.shadow.structs import BITMAP_BYTES, BLOCK, NODE_SIZE, RecordType

if TYPE_CHECKING:
    from vsssnap.blocks.reader import BlockReader

SEGMENT_BLOCKS: Final = 8128
"""Blocks that are looked at together: a sixteenth of what a bitmap block covers (127 MiB of volume)."""
SEGMENT: Final = SEGMENT_BLOCKS * BLOCK
_BYTES: Final = SEGMENT_BLOCKS // 8
_PER_NODE: Final = BITMAP_BYTES // _BYTES
ALL: Final = (1 << SEGMENT_BLOCKS) - 1
"""Every bit of a segment."""


class Bitmap:
    """A chain of bitmap blocks; a bit is 1 for a block that was not protected."""

    def __init__(self, storage: BlockReader, first: int, size: int, *, whole: bool) -> None:
        """Follow the chain.

        Args:
            storage: The volume that holds it.
            first: Offset of its first block.
            size: Bytes of volume it is about.
            whole: Whether it must cover all of them; else what lies behind its end counts as 1.

        Raises:
            CorruptImageError: the chain is broken or too short.
            DeviceReadError: it cannot be read.
        """
        self._storage = storage
        self._nodes = array("Q")
        need = -(-size // (BITMAP_BYTES * 8 * BLOCK))
        for offset, _ in walk(storage, first, RecordType.BITMAP, NODE_SIZE):
            self._nodes.append(offset)
            if len(self._nodes) >= need:
                break
        if whole and len(self._nodes) < need:
            raise CorruptImageError(
                f"bitmap at {first}: it has {len(self._nodes)} blocks, {size} bytes of volume need {need}",
                structure="bitmap",
                offset=first,
            )

    def bits(self, segment: int) -> int:
        """The bits of a segment, the first block's lowest.

        Raises:
            DeviceReadError: they cannot be read.
        """
        node, part = divmod(segment, _PER_NODE)
        if node >= len(self._nodes):
            return ALL
        offset = self._nodes[node] + NODE_SIZE + part * _BYTES
        return int.from_bytes(self._storage.pread(_BYTES, offset), "little")
