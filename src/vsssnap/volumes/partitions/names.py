"""Names of common partition types, and the type a file system lives in.

Sources: UEFI 2.10 table 5.7 (EFI system), Microsoft "PARTITION_INFORMATION_GPT" and "Disk Partition
Types", the Discoverable Partitions Specification (Linux, systemd), FreeBSD gpart(8), Apple TN2166.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

EFI_SYSTEM: Final = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
BASIC_DATA: Final = UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
LINUX_DATA: Final = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")

GPT_NAMES: Final = {
    EFI_SYSTEM: "EFI system",
    BASIC_DATA: "Microsoft basic data",
    UUID("e3c9e316-0b5c-4db8-817d-f92df00215ae"): "Microsoft reserved",
    UUID("de94bba4-06d1-4d40-a16a-bfd50179d6ac"): "Windows recovery",
    UUID("5808c8aa-7e8f-42e0-85d2-e1e90434cfb3"): "Windows LDM metadata",
    UUID("af9b60a0-1431-4f62-bc68-3311714a69ad"): "Windows LDM data",
    UUID("e75caf8f-f680-4cee-afa3-b001e56efc2d"): "Windows storage spaces",
    UUID("21686148-6449-6e6f-744e-656564454649"): "BIOS boot",
    LINUX_DATA: "Linux file system",
    UUID("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"): "Linux swap",
    UUID("e6d6d379-f507-44c2-a23c-238f2a3df928"): "Linux LVM",
    UUID("a19d880f-05fc-4d3b-a006-743f0f84911e"): "Linux RAID",
    UUID("933ac7e1-2eb4-4f13-b844-0e14e2aef915"): "Linux home",
    UUID("3b8f8425-20e0-4f3b-907f-1a25a76f98e8"): "Linux server data",
    UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"): "Linux root (x86-64)",
    UUID("44479540-f297-41b2-9af7-d131d5f0458a"): "Linux root (x86)",
    UUID("b921b045-1df0-41c3-af44-4c6f280d3fae"): "Linux root (ARM64)",
    UUID("bc13c2ff-59e6-4262-a352-b275fd6f7172"): "Linux extended boot",
    UUID("ca7d7ccb-63ed-4c53-861c-1742536059cc"): "Linux LUKS",
    UUID("48465300-0000-11aa-aa11-00306543ecac"): "Apple HFS+",
    UUID("7c3457ef-0000-11aa-aa11-00306543ecac"): "Apple APFS",
    UUID("516e7cba-6ecf-11d6-8ff8-00022d09712b"): "FreeBSD ZFS",
    UUID("516e7cb6-6ecf-11d6-8ff8-00022d09712b"): "FreeBSD UFS",
    UUID("6a898cc3-1dd2-11b2-99a6-080020736631"): "Solaris /usr, Apple ZFS",
}

EXTENDED: Final = frozenset({0x05, 0x0F, 0x85})
PROTECTIVE: Final = 0xEE

MBR_NAMES: Final = {
    0x01: "FAT12",
    0x04: "FAT16 below 32 MiB",
    0x05: "extended",
    0x06: "FAT16",
    0x07: "NTFS, exFAT",
    0x0B: "FAT32",
    0x0C: "FAT32 (LBA)",
    0x0E: "FAT16 (LBA)",
    0x0F: "extended (LBA)",
    0x11: "hidden FAT12",
    0x16: "hidden FAT16",
    0x17: "hidden NTFS",
    0x1B: "hidden FAT32",
    0x1C: "hidden FAT32 (LBA)",
    0x27: "Windows recovery",
    0x42: "Windows dynamic disk",
    0x82: "Linux swap",
    0x83: "Linux",
    0x85: "Linux extended",
    0x8E: "Linux LVM",
    0xA5: "FreeBSD",
    0xAF: "Apple HFS+",
    0xEE: "GPT protective",
    0xEF: "EFI system",
    0xFD: "Linux RAID",
}


def type_name(kind: UUID | int) -> str:
    """What a type is called, or "" if it is none of the common ones."""
    return GPT_NAMES.get(kind, "") if isinstance(kind, UUID) else MBR_NAMES.get(kind, "")
