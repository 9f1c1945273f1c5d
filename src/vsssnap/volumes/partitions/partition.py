"""One partition."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vsssnap.blocks.window import WindowReader
from vsssnap.errors import CorruptImageError
from vsssnap.volumes.partitions.names import EXTENDED, type_name

if TYPE_CHECKING:
    from uuid import UUID

    from vsssnap.blocks.reader import BlockReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition of a disk.

    Attributes:
        number: As the system numbers it: the slot from 1; logical partitions of an MBR from 5.
        offset: First byte on the disk.
        length: Bytes.
        type: A GUID under GPT, a number of one byte under MBR.
        name: Its label under GPT, else "".
        id: Its own GUID under GPT, else None.
        attributes: The 64 attribute bits under GPT; the boot indicator under MBR (0x80: active).
    """

    number: int
    offset: int
    length: int
    type: UUID | int
    name: str = ""
    id: UUID | None = None
    attributes: int = 0
    disk: BlockReader = field(repr=False, compare=False)

    @property
    def end(self) -> int:
        """First byte after it."""
        return self.offset + self.length

    @property
    def type_name(self) -> str:
        """What its type is called, or "" if it is none of the common ones."""
        return type_name(self.type)

    @property
    def extended(self) -> bool:
        """Whether it only contains the logical partitions."""
        return self.type in EXTENDED

    def open(self) -> BlockReader:
        """What is in it, as a reader; closing that leaves the disk open.

        Raises:
            CorruptImageError: the disk ends before the partition does.
        """
        if self.end > self.disk.size:
            raise CorruptImageError(
                f"partition {self.number} ends at byte {self.end}, the disk at {self.disk.size}",
                structure="partition table",
                offset=self.offset,
                hint="the image is cut short, or the table belongs to a larger disk",
            )
        return WindowReader(self.disk, self.offset, self.length)
