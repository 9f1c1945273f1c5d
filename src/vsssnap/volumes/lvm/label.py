"""The label of a physical volume, and the descriptions of its group in the metadata areas."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vsssnap._units import MIB
from vsssnap.errors import (
    CorruptImageError,
    DeviceReadError,
    UnknownFormatError,
    UnsupportedFeatureError,
)
from vsssnap.volumes.lvm.structs import (
    IGNORED,
    LABEL_ID,
    LABEL_SECTORS,
    LABEL_TYPE,
    METADATA_HEADER,
    METADATA_MAGIC,
    METADATA_VERSION,
    SECTOR,
    Area,
    LabelHeader,
    MetadataHeader,
    Slot,
    VolumeHeader,
    crc,
)

if TYPE_CHECKING:
    from vsssnap.blocks.reader import BlockReader

_LONGEST_TEXT: Final = 16 * MIB  # LVM makes areas of 1 MiB; who has thousands of volumes takes some more
_MOST_AREAS: Final = 30  # so many fit into the label's sector
_OLD: Final = "vgconvert(8) of an older LVM makes it one of type LVM2"
_IDENTIFIER: Final = re.compile(rb"[0-9A-Za-z!#]+")  # the last two only where a user made it up


@dataclass(frozen=True, slots=True)
class Label:
    """A physical volume as it says itself.

    Attributes:
        id: Its UUID as LVM writes it, in groups.
        device_size: Bytes.
        metadata: The metadata areas: offset and size in bytes.
    """

    id: str
    device_size: int
    metadata: tuple[tuple[int, int], ...]


def has_label(volume: BlockReader) -> bool:
    """Whether a reader begins with the label of a physical volume, damaged ones included.

    Raises:
        DeviceReadError: it cannot be read there.
    """
    head = volume.pread(LABEL_SECTORS * SECTOR, 0)
    return any(head.startswith(LABEL_ID, at) for at in range(0, len(head), SECTOR))


def read_label(volume: BlockReader) -> Label:
    """The label of a physical volume; as LVM does, the first of four sectors that has a good one.

    Raises:
        UnknownFormatError: it is no physical volume.
        CorruptImageError: its label is damaged.
        UnsupportedFeatureError: it is of another version.
        DeviceReadError: it cannot be read.
    """
    head = volume.pread(LABEL_SECTORS * SECTOR, 0)
    wrong: CorruptImageError | None = None
    for number in range(LABEL_SECTORS):
        sector = head[number * SECTOR : (number + 1) * SECTOR]
        if not sector.startswith(LABEL_ID):
            continue
        if len(sector) < SECTOR:
            raise _damaged("ends before it does", number)
        header = LabelHeader.unpack(sector)
        if header.checksum != crc(sector[20:]):
            wrong = wrong or _damaged("has another checksum", number)
        elif header.sector_number != number:
            wrong = wrong or _damaged(f"says that it is in sector {header.sector_number}", number)
        elif header.type != LABEL_TYPE:
            raise UnsupportedFeatureError(
                f"the physical volume is of type {header.type!r}", feature="LVM label", hint=_OLD
            )
        else:
            return _header(sector, header, number)
    if wrong is not None:
        raise wrong
    raise UnknownFormatError(
        "it is no LVM physical volume: the first four sectors have no label",
        hint="of a disk with partitions give one, such as Partitions(disk)[2].open()",
    )


def _header(sector: bytes, label: LabelHeader, number: int) -> Label:
    at = label.header_offset
    if not LabelHeader.SIZE <= at <= SECTOR - VolumeHeader.SIZE:
        raise _damaged(f"has its header at byte {at} of the sector", number)
    header = VolumeHeader.unpack(sector, at)
    at += VolumeHeader.SIZE
    areas: list[tuple[int, int]] = []
    lists = 0  # of data areas, of metadata areas
    while lists < 2:
        if at + Area.SIZE > SECTOR:
            raise _damaged("has lists of areas without an end", number)
        area = Area.unpack(sector, at)
        at += Area.SIZE
        if not area.offset:
            lists += 1
        elif lists:
            areas.append((area.offset, area.size))
    return Label(shown(header.identifier, number), header.device_size, tuple(areas[:_MOST_AREAS]))


def shown(identifier: bytes, number: int) -> str:
    """An identifier in groups, as LVM writes it.

    Raises:
        CorruptImageError: it has other characters than those have.
    """
    if not _IDENTIFIER.fullmatch(identifier):
        raise _damaged("has an identifier of other characters", number)
    text = identifier.decode("ascii")
    return "-".join(
        text[first:end] for first, end in ((0, 6), (6, 10), (10, 14), (14, 18), (18, 22), (22, 26), (26, 32))
    )


def _damaged(why: str, number: int) -> CorruptImageError:
    return CorruptImageError(
        f"the label of the LVM physical volume, in sector {number}, {why}",
        structure="LVM label",
        offset=number * SECTOR,
        hint="pvck(8) can write it anew",
    )


def read_texts(
    volume: BlockReader, label: Label, wrong: list[CorruptImageError | DeviceReadError]
) -> list[str]:
    """What the metadata areas say of the group; none if there are no areas, or it is in no group.

    Args:
        volume: The physical volume.
        label: Its label.
        wrong: Gets why an area cannot be read; another one may be good, here or on another physical volume.
    """
    texts = []
    for offset, size in label.metadata:
        try:
            if text := _text(volume, offset, size):
                texts.append(text)
        except (CorruptImageError, DeviceReadError) as exc:
            wrong.append(exc)
    return texts


def _text(volume: BlockReader, offset: int, size: int) -> str:
    """The text in force in an area; "" if there is none."""
    where = f"the LVM metadata area at byte {offset}"
    if size <= METADATA_HEADER or offset + size > volume.size:
        raise _bad_area(f"{where} of {size} bytes is not inside the physical volume", offset)
    head = volume.pread(METADATA_HEADER, offset)
    header = MetadataHeader.unpack(head)
    if header.magic != METADATA_MAGIC or header.checksum != crc(head[4:]):
        raise _bad_area(f"{where} has no good header", offset)
    if header.version != METADATA_VERSION or (header.offset, header.size) != (offset, size):
        raise _bad_area(f"{where} has the header of another one", offset)
    # Of the four slots the first is in force; the second is of a change that is not made yet.
    slot = Slot.unpack(head, MetadataHeader.SIZE)
    if not slot.offset or slot.flags & IGNORED:
        return ""
    return _in_force(volume, offset, size, slot, where)


def _in_force(volume: BlockReader, offset: int, size: int, slot: Slot, where: str) -> str:
    if slot.size > min(size - METADATA_HEADER, _LONGEST_TEXT) or not (METADATA_HEADER <= slot.offset < size):
        raise _bad_area(f"{where} has a text of {slot.size} bytes at {slot.offset}, outside of it", offset)
    before_end = min(slot.size, size - slot.offset)
    data = volume.pread(before_end, offset + slot.offset)
    if slot.size > before_end:  # it goes round
        data += volume.pread(slot.size - before_end, offset + METADATA_HEADER)
    if crc(data) != slot.checksum:
        raise _bad_area(f"the text in {where} has another checksum", offset)
    # Of the words of the last command and of names of devices LVM keeps the bytes, in whatever coding.
    return data.rstrip(b"\0").decode("utf-8", "replace")


def _bad_area(what: str, offset: int) -> CorruptImageError:
    return CorruptImageError(
        what,
        structure="LVM metadata area",
        offset=offset,
        hint="vgcfgrestore(8) can write it anew from a backup in /etc/lvm",
    )
