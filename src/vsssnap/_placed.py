"""A volume of the system and its place on a disk: what `_posix.disks` and `_win32.disks` find."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedVolume:
    """A logical volume of LVM that the system shows as a device.

    Attributes:
        id: UUIDs of its group and of itself, one behind the other and without hyphens; a part of a
            volume (of a snapshot, of a pool) has a word behind them.
        name: What a snapshot of it is asked for by.
        idle: Whether nobody uses it.
        reason: Why a snapshot cannot stand for it, the end of a sentence; "" if one can.
    """

    id: str
    name: str
    idle: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedVolume:
    """A range of a disk that the system knows as a volume.

    Attributes:
        offset: First byte on the disk.
        length: Bytes.
        name: What a snapshot of it is asked for by.
        idle: Whether nobody uses it, so that there is nothing to freeze.
        reason: Why a snapshot cannot stand for this range, the end of a sentence; "" if one can.
        logical: Whether it is under logical volumes of LVM, and nothing else.
    """

    offset: int
    length: int
    name: str
    idle: bool = False
    reason: str = ""
    logical: bool = False

    @property
    def end(self) -> int:
        """First byte after it."""
        return self.offset + self.length
