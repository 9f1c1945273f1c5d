"""Create options of `.vsnap` images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vsssnap._arguments import instance
from vsssnap._units import KIB, MIB, is_power_of_two, whole
from vsssnap.errors import UsageError
from vsssnap.formats.vsnap import structs
from vsssnap.formats.vsnap.structs import HeaderBody

if TYPE_CHECKING:
    from uuid import UUID

    from vsssnap.formats.vsnap.layout import Geometry

_DIGESTS: Final = {"blake3": structs.BLAKE3, "sha256": structs.SHA256}


@dataclass(frozen=True, slots=True, kw_only=True)
class VsnapOptions:
    """How a `.vsnap` image is written; sizes are bytes.  A child has its parent's sizes and digest.

    Attributes:
        level: Zstandard's level, 1 to 19, or negative for speed; 0 stores raw blocks.
        chunk_size: Unit of the index: a power of two, 64 KiB to 16 MiB; None for 1 MiB.
        cell_size: Unit of states and change: a power of two, 4 KiB to ``chunk_size``; None for
            64 KiB.
        segment_size: Unit of compression, which a random read decodes: a power of two, 64 KiB to
            8 MiB and ``chunk_size``; None for 256 KiB or a chunk.
        digest: ``"blake3"`` or ``"sha256"``; None for blake3.
        sector_size: What the image says its sectors are; None for 512.
        image_id: Instead of a random one, for reproducible files; never give one id to two files.
    """

    level: int = 1
    chunk_size: int | None = None
    cell_size: int | None = None
    segment_size: int | None = None
    digest: str | None = None
    sector_size: int | None = None
    image_id: UUID | None = None

    def header(self, size: int, parent: Geometry | None, parent_id: bytes, parent_root: bytes) -> HeaderBody:
        """The header of a new image.

        Raises:
            UsageError: a value is out of its bounds, or not the parent's.
        """
        whole(size, "size", most=structs.MAX_VOLUME)
        if type(self.level) is not int or not -50 <= self.level <= 19:
            raise UsageError(
                f"level is {self.level!r}, no whole number in -50..19",
                hint="a higher one is smaller and slower: 1 is the default, 19 the smallest",
            )
        if self.digest not in (None, *_DIGESTS):
            raise UsageError(f"digest is {self.digest!r}", hint=f"choose one of {', '.join(_DIGESTS)}")
        for name in ("chunk_size", "cell_size", "segment_size", "sector_size"):
            if getattr(self, name) is not None:
                whole(getattr(self, name), name, least=1)
        if self.image_id is not None:
            from uuid import UUID

            instance(self.image_id, UUID, "image_id")
        basis = parent.header if parent is not None else None
        chunk = self.chunk_size or (basis.chunk_size if basis else MIB)
        cell = self.cell_size or (basis.cell_size if basis else min(64 * KIB, chunk))
        header = HeaderBody(
            structs.FORMAT,
            _DIGESTS[self.digest] if self.digest else basis.digest if basis else structs.BLAKE3,
            self.sector_size or (basis.sector_size if basis else 512),
            size,
            chunk,
            cell,
            self.segment_size or min(256 * KIB, chunk),
            structs.FAN_OUT,
            1 if basis else 0,
            structs.CHAIN if basis else 0,
            0,
            0,
            parent_id,
            parent_root,
            0,
        )
        _power_of_two("chunk_size", header.chunk_size, 64 * KIB, 16 * MIB)
        _power_of_two("cell_size", header.cell_size, 4 * KIB, header.chunk_size)
        _power_of_two("segment_size", header.segment_size, 64 * KIB, min(8 * MIB, header.chunk_size))
        _power_of_two("sector_size", header.sector_size, 1, 1 << 24)
        if basis is not None:
            for name in ("size", "sector_size", "chunk_size", "cell_size", "digest"):
                if getattr(header, name) != getattr(basis, name):
                    raise UsageError(
                        f"{name} is {getattr(header, name)}, the parent has {getattr(basis, name)}",
                        hint="an increment has its parent's geometry; save a full image instead",
                    )
        return header


def _power_of_two(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most or not is_power_of_two(value):
        raise UsageError(f"{name} is {value}, no power of two in {least}..{most}")
