"""Internal snapshots: the snapshot table.

Source: QEMU, docs/interop/qcow2.txt, section "Snapshots".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from vsssnap._units import round_up
from vsssnap.formats.qcow2 import structs
from vsssnap.formats.qcow2.header import corrupt
from vsssnap.formats.qcow2.structs import SnapshotExtra, SnapshotHead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.formats.qcow2.header import Layout
    from vsssnap.formats.storage import Storage

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Qcow2Snapshot:
    """A snapshot inside an image.

    Attributes:
        id: Its id, unique in the image.
        name: Its name.
        size: Bytes of the virtual disk as it was.
        created: When it was taken.
        vm_state_size: Bytes of a saved machine's memory that lie behind the disk; 0 for none.
        l1_offset: Where its L1 table is in the file.
        l1_entries: Entries of that table.
    """

    id: str
    name: str
    size: int
    created: datetime
    vm_state_size: int
    l1_offset: int
    l1_entries: int


def snapshots(storage: Storage, layout: Layout) -> Iterator[tuple[Qcow2Snapshot, int]]:
    """The snapshots of an image, each with the end of its entry in the file.

    Raises:
        CorruptImageError: the table breaks a rule.
    """
    fields = layout.fields
    start, count = fields.snapshots_offset, fields.nb_snapshots
    if not count:
        return
    if count > structs.MAX_SNAPSHOTS:
        raise corrupt(storage, f"{count} snapshots, above {structs.MAX_SNAPSHOTS}", "snapshot table", start)
    if start % layout.cluster_size:
        raise corrupt(storage, f"a snapshot table at {start}, not aligned", "snapshot table", start)
    at = start
    for number in range(count):
        head = SnapshotHead.unpack(_read(storage, SnapshotHead.SIZE, at, number))
        if head.extra_size > structs.MAX_SNAPSHOT_EXTRA:
            raise corrupt(
                storage, f"snapshot {number} has {head.extra_size} bytes of extra data", "snapshot table", at
            )
        extra = _read(storage, head.extra_size, at + SnapshotHead.SIZE, number)
        text_at = at + SnapshotHead.SIZE + head.extra_size
        text = _read(storage, head.id_size + head.name_size, text_at, number)
        at = round_up(text_at + len(text), 8)
        if at - start > structs.MAX_SNAPSHOT_TABLE:
            raise corrupt(storage, f"it is above {structs.MAX_SNAPSHOT_TABLE} bytes", "snapshot table", start)
        state, size = head.vm_state_size, fields.size
        if head.extra_size >= SnapshotExtra.SIZE:
            told = SnapshotExtra.unpack(extra)
            state, size = told.vm_state_size, told.disk_size
        elif head.extra_size >= 8:
            state = int.from_bytes(extra[:8], "big")
        created = _EPOCH + timedelta(seconds=head.seconds, microseconds=head.nanoseconds // 1000)
        yield (
            Qcow2Snapshot(
                text[: head.id_size].decode("utf-8", "surrogateescape"),
                text[head.id_size :].decode("utf-8", "surrogateescape"),
                size,
                created,
                state,
                head.l1_table_offset,
                head.l1_size,
            ),
            at,
        )


def _read(storage: Storage, length: int, offset: int, number: int) -> bytes:
    if offset + length > storage.size:
        raise corrupt(
            storage,
            f"snapshot {number} has {length} bytes at {offset}, behind the end of the file",
            "snapshot table",
            offset,
        )
    return storage.pread(length, offset)
