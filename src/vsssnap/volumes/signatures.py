"""Signatures of what is no file system that is read here, but may lie on a volume beside one.

Whoever puts a partition table, a RAID or another file system on a disk does not always erase what was
there: the super block of an old ext4 lies at byte 1024, where a partition table has nothing.  Its map
would then leave out blocks of what is on the disk now.  So a map is used only of a volume that shows
no second signature, as blkid(8) has it too ("ambivalent result").

Sources: the magic numbers that each project documents; md(4), lvm2's format_text, ZFS On-Disk
Specification 1.3.1, Btrfs on-disk format, XFS Algorithms & Data Structures, LUKS1 and LUKS2 formats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vsssnap.errors import CorruptImageError, UnknownFormatError
from vsssnap.volumes.partitions import Partitions, Scheme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.blocks.reader import BlockReader

_KIB = 1 << 10

_SIGNATURES: Final = (
    (0, b"XFSB", "XFS"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (0, b"integrt\0", "dm-integrity"),
    (0, b"dmvdo001", "VDO"),
    (0, b"bluestore block device", "Ceph"),
    (0, b"\xfc\x4e\x2b\xa9", "Linux RAID"),
    (3, b"-FVE-FS-", "BitLocker"),
    (3, b"ReFS\0\0\0\0", "ReFS"),
    (32, b"NXSB", "APFS"),
    *((sector * 512, b"LABELONE", "LVM") for sector in range(4)),
    (1024, b"\x10\x20\xf5\xf2", "F2FS"),
    (1024, b"H+\0\x04", "HFS+"),
    (1024, b"HX\0\x05", "HFSX"),
    (4096, b"\xfc\x4e\x2b\xa9", "Linux RAID"),
    (4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", "bcache"),
    (4096, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef", "bcachefs"),
    *((page - 10, b"SWAPSPACE2", "swap") for page in (4096, 8192, 16384, 65536)),
    (32 * _KIB, b"JFS1", "JFS"),
    (64 * _KIB + 52, b"ReIsEr", "ReiserFS"),
    (64 * _KIB + 64, b"_BHRfS_M", "Btrfs"),
    *(
        (block * _KIB + 0x55C, magic, "UFS")
        for block in (8, 64)
        for magic in (b"\x54\x19\x01\0", b"\x19\x01\x54\x19")
    ),
)
_HEAD = 68 * _KIB  # all of them lie in it

# The uberblocks of ZFS fill the second half of its first label; in either byte order.
_ZFS = (128 * _KIB, 256 * _KIB, (b"\x0c\xb1\xba\0\0\0\0\0", b"\0\0\0\0\0\xba\xb1\x0c"))


def has_table(reader: BlockReader) -> bool:
    """Whether a reader begins with a partition table, damaged ones included.

    Raises:
        DeviceReadError: it cannot be read there.
    """
    try:
        table = Partitions(reader)
    except UnknownFormatError:  # boot sectors of file systems, and all that is no table
        return False
    except CorruptImageError:
        return True
    return bool(len(table)) or table.scheme is Scheme.GPT


def others(volume: BlockReader) -> Iterator[str]:
    """Names of what else a volume seems to hold.

    Raises:
        DeviceReadError: the volume cannot be read.
    """
    if has_table(volume):
        yield "a partition table"
    head = volume.pread(_HEAD, 0)
    yield from dict.fromkeys(name for at, magic, name in _SIGNATURES if head.startswith(magic, at))
    first, end, magics = _ZFS
    label = volume.pread(end - first, first)
    if any(label[at : at + 8] in magics for at in range(0, len(label), _KIB)):
        yield "ZFS"
