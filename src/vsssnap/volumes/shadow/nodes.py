"""Metadata blocks: read one, or follow a chain of them.

Each names its own place, so a stale or foreign block is found; a chain that comes back to where
it was is an error, so it has at most as many blocks as the volume.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap.errors import CorruptImageError, UnsupportedFeatureError
from vsssnap.volumes.shadow.structs import BLOCK, IDENTIFIER, VERSIONS, NodeHeader, RecordType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.blocks.reader import BlockReader


def name_of(record_type: RecordType) -> str:
    """The structure's name in messages."""
    return record_type.name.lower().replace("_", " ")


def walk(
    storage: BlockReader, first: int, record_type: RecordType, length: int = BLOCK
) -> Iterator[tuple[int, memoryview]]:
    """The blocks of a chain.

    Args:
        storage: The volume that holds them.
        first: Offset of the first one, in bytes.
        record_type: What each must be.
        length: How much of each is read, in bytes.

    Yields:
        ``(offset, block)``.

    Raises:
        CorruptImageError: a block is not what the chain needs at its place, or the chain is a loop.
        UnsupportedFeatureError: a block is of an unknown version.
        DeviceReadError: a block cannot be read.
    """
    seen: set[int] = set()
    offset = first
    while offset:
        if offset in seen:
            raise _corrupt(storage, record_type, offset, "the chain comes back to it")
        seen.add(offset)
        block, header = read_node(storage, offset, record_type, length)
        yield offset, block
        offset = header.next_offset


def read_node(
    storage: BlockReader, offset: int, record_type: RecordType, length: int = BLOCK
) -> tuple[memoryview, NodeHeader]:
    """One block and its header; see `walk` for arguments and errors."""
    if offset % BLOCK or not BLOCK <= offset <= storage.size - BLOCK:
        raise _corrupt(storage, record_type, offset, f"no place for a block in {storage.size} bytes")
    block = memoryview(storage.pread(length, offset))
    header = NodeHeader.unpack(block)
    if header.identifier != IDENTIFIER:
        raise _corrupt(storage, record_type, offset, "there is no metadata block")
    if header.record_type != record_type:
        raise _corrupt(storage, record_type, offset, f"the block there is of type {header.record_type}")
    if header.own_offset != offset:
        raise _corrupt(storage, record_type, offset, f"the block there belongs at {header.own_offset}")
    if header.version not in VERSIONS:
        raise UnsupportedFeatureError(
            f"the {name_of(record_type)} block at {offset} is of version {header.version}",
            feature=f"version {header.version}",
        )
    return block, header


def _corrupt(storage: BlockReader, record_type: RecordType, offset: int, problem: str) -> CorruptImageError:
    name = name_of(record_type)
    where = f"{storage.metadata.device}: " if storage.metadata.device else ""
    return CorruptImageError(f"{where}{name} block at {offset}: {problem}", structure=name, offset=offset)
