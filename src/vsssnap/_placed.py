"""A volume of the system and its place on a disk: what `_posix.disks` and `_win32.disks` find."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedVolume:
    """A range of a disk that the system knows as a volume.

    Attributes:
        offset: First byte on the disk.
        length: Bytes.
        name: What a snapshot of it is asked for by.
        idle: Whether nobody uses it, so that there is nothing to freeze.
        reason: Why a snapshot cannot stand for this range, the end of a sentence; "" if one can.
    """

    offset: int
    length: int
    name: str
    idle: bool = False
    reason: str = ""

    @property
    def end(self) -> int:
        """First byte after it."""
        return self.offset + self.length
