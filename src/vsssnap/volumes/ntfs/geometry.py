"""The boot sector, and the fix-ups that guard what is longer than a sector."""

from __future__ import annotations

from dataclasses import dataclass

from vsssnap._units import is_power_of_two
from vsssnap.errors import CorruptImageError
from vsssnap.volumes.ntfs.structs import STRIDE, BootSector

_MAX_CLUSTER = 2 << 20
_MAX_RECORD = 64 << 10


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes in bytes, places in clusters."""

    sector_size: int
    cluster_size: int
    clusters: int
    volume_size: int  # without the copy of the boot sector
    mft_lcn: int
    mirror_lcn: int
    record_size: int
    index_size: int
    serial: int


def is_ntfs(head: bytes) -> bool:
    """Whether a volume begins as NTFS does."""
    return head[3:11] == b"NTFS    " and head[510:512] == b"\x55\xaa"


def geometry(head: bytes) -> Geometry:
    """Read the boot sector.

    Raises:
        CorruptImageError: a number is none that NTFS has.
    """
    boot = BootSector.unpack(head)
    sector = boot.bytes_per_sector
    if not (256 <= sector <= 4096 and is_power_of_two(sector)):
        raise bad(f"sectors of {sector} bytes", "boot sector", 11)
    factor = boot.sectors_per_cluster
    if factor > 128:
        factor = 1 << (256 - factor)
    cluster = sector * factor
    if not is_power_of_two(factor) or cluster > _MAX_CLUSTER:
        raise bad(f"clusters of {boot.sectors_per_cluster} sectors", "boot sector", 13)
    clusters = boot.total_sectors // factor
    if not 0 < clusters < 1 << 48:
        raise bad(f"{boot.total_sectors} sectors", "boot sector", 40)
    if boot.mft_lcn >= clusters:
        raise bad(f"$MFT in cluster {boot.mft_lcn} of {clusters}", "boot sector", 48)
    return Geometry(
        sector_size=sector,
        cluster_size=cluster,
        clusters=clusters,
        volume_size=boot.total_sectors * sector,
        mft_lcn=boot.mft_lcn,
        mirror_lcn=boot.mftmirr_lcn,
        record_size=_record_size(boot.clusters_per_record, cluster, 64),
        index_size=_record_size(boot.clusters_per_index, cluster, 68),
        serial=boot.serial,
    )


def _record_size(code: int, cluster: int, at: int) -> int:
    size = 1 << -code if code < 0 else code * cluster
    if not (STRIDE <= size <= max(_MAX_RECORD, cluster) and is_power_of_two(size) and size <= _MAX_CLUSTER):
        raise bad(f"records of {size} bytes", "boot sector", at)
    return size


def fixed(block: bytes, magic: bytes, usa_offset: int, usa_count: int, at: int) -> bytes:
    """Undo the fix-ups of a record.

    Args:
        block: The whole record.
        magic: What it must begin with.
        usa_offset: Where the update sequence is in it.
        usa_count: Its length, in numbers of two bytes.
        at: Where it lies on the volume, for messages.

    Raises:
        CorruptImageError: it is no such record, or was written only partly.
    """
    name = magic.decode("ascii")
    if block[:4] != magic:
        raise bad(f"{block[:4]!r} where {name} had to be", f"{name} record", at)
    if usa_count != len(block) // STRIDE + 1 or usa_offset + 2 * usa_count > STRIDE - 2:
        raise bad(f"an update sequence of {usa_count} at {usa_offset}", f"{name} record", at)
    data = bytearray(block)
    number = block[usa_offset : usa_offset + 2]
    for index in range(1, usa_count):
        end = index * STRIDE
        if block[end - 2 : end] != number:
            raise bad(f"its part {index} was never written", f"{name} record", at)
        data[end - 2 : end] = block[usa_offset + 2 * index : usa_offset + 2 * index + 2]
    return bytes(data)


def bad(what: str, structure: str, at: int | None) -> CorruptImageError:
    """An error of a structure of NTFS."""
    return CorruptImageError(f"NTFS: {structure}: {what}", structure=structure, offset=at)
