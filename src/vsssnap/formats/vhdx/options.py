"""Create options of VHDX images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vsssnap._units import MIB, is_power_of_two, whole
from vsssnap.errors import UsageError
from vsssnap.formats.vhdx import structs
from vsssnap.formats.vhdx.layout import Geometry

if TYPE_CHECKING:
    from uuid import UUID

_BLOCK: Final = 2 * MIB
_MOST_BLOCKS: Final = 1 << 20  # by default: a BAT of 8 MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class VhdxOptions:
    """How a VHDX image is made; sizes are bytes.

    Attributes:
        fixed: Whether every block has its place from the start; by default blocks get one when
            something is written to them.
        preallocate: With ``fixed``: reserve the space of the whole disk first, so that a full disk
            is an error before anything is copied.
        block_size: A power of two, 1 MiB to 256 MiB; None for 2 MiB, or more on disks above 2 TiB,
            so that there are at most 2**20 blocks.
        logical_sector_size: 512 or 4096; None for the parent's, or 512.
        physical_sector_size: 512 or 4096; None for the parent's, or 4096.
        sidecar: Whether checksums, states and metadata are kept in ``<image>.vsssnap``.
        identity: Makes all GUIDs of the file follow from this one, for reproducible files; never give
            one to two different contents: a child knows its parent by it.
    """

    fixed: bool = False
    preallocate: bool = False
    block_size: int | None = None
    logical_sector_size: int | None = None
    physical_sector_size: int | None = None
    sidecar: bool = False
    identity: UUID | None = None

    def geometry(self, size: int, parent: Geometry | None) -> Geometry:
        """The numbers of a new image.

        Raises:
            UsageError: a VHDX cannot have these.
        """
        if parent is not None and (self.fixed or self.preallocate):
            raise UsageError("a fixed VHDX has no parent", hint="leave out fixed and preallocate, or parent=")
        if self.preallocate and not self.fixed:
            raise UsageError("only a fixed VHDX can be preallocated", hint="pass fixed=True too")
        sector = self.sector(parent.sector_size if parent else 512, self.logical_sector_size, "logical")
        if parent is not None and sector != parent.sector_size:
            raise UsageError(
                f"the parent has sectors of {parent.sector_size} bytes, not {sector}",
                hint="leave out logical_sector_size",
            )
        if parent is not None and size != parent.size:
            raise UsageError(
                f"the parent has {parent.size} bytes, the new image {size}", hint="save a full image"
            )
        if not size:
            raise UsageError("a VHDX of 0 bytes is no disk", hint="save it as raw or vsnap")
        if size % sector:
            raise UsageError(
                f"a volume of {size} bytes is no whole number of sectors of {sector} bytes",
                hint="a VHDX holds whole sectors alone; save it as raw or vsnap",
            )
        whole(size, "size of a VHDX", most=structs.MAX_DISK)
        block = self.block_size
        if block is None:
            block = _BLOCK
            while size > block * _MOST_BLOCKS:
                block *= 2
        elif not is_power_of_two(whole(block, "block_size", least=structs.MIN_BLOCK, most=structs.MAX_BLOCK)):
            raise UsageError(f"block_size is {block}, no power of two", hint="leave it out for a fitting one")
        return Geometry(size, block, sector, parent is not None)

    @staticmethod
    def sector(default: int, given: int | None, what: str) -> int:
        """A sector size that was asked for, or the default.

        Raises:
            UsageError: it is neither 512 nor 4096.
        """
        if given is None:
            return default
        if given not in structs.SECTOR_SIZES:
            raise UsageError(f"{what}_sector_size is {given}", hint="a VHDX has sectors of 512 or 4096 bytes")
        return given
