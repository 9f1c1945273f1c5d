"""Create options of QCOW2 images, and the sizes that they can hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from vsssnap._units import MAX_SIZE, format_size, is_power_of_two, whole
from vsssnap.errors import UsageError
from vsssnap.formats.qcow2 import structs

if TYPE_CHECKING:
    from uuid import UUID

KINDS: Final = {"zlib": structs.ZLIB, "zstd": structs.ZSTD}
_LEVELS: Final = {"zlib": (1, 9), "zstd": (-50, 19)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Qcow2Options:
    """How a QCOW2 image is written; it is always version 3 with refcounts of 16 bits.

    Attributes:
        cluster_size: Bytes: a power of two, 512 to 2 MiB.
        compression: ``"none"``, ``"zstd"`` (read by QEMU 5.1 and later) or ``"zlib"`` (read by
            everybody).
        level: The compressor's; 1 if None, which is fast: 1 to 9 for zlib, -50 to 19 for zstd.
        backing_name: What the image calls its parent; by default the path from its own folder.
        identity: Instead of a random one, for reproducible files; never give one to two images.
        sidecar: Whether checksums, states and metadata are kept in ``<image>.vsssnap``; without
            it they are lost.
    """

    cluster_size: int = 64 << 10
    compression: Literal["none", "zstd", "zlib"] = "none"
    level: int | None = None
    backing_name: str | None = None
    identity: UUID | None = None
    sidecar: bool = False

    def check(self, size: int) -> None:
        """Hold the options and a volume of ``size`` bytes against the format's bounds.

        Raises:
            UsageError: one is out of its bounds.
        """
        cluster = whole(self.cluster_size, "cluster_size")
        if not 512 <= cluster <= 2 << 20 or not is_power_of_two(cluster):
            raise UsageError(f"cluster_size is {cluster}, no power of two in 512..{2 << 20}")
        if self.compression != "none" and self.compression not in KINDS:
            raise UsageError(
                f"compression is {self.compression!r}", hint=f"choose one of none, {', '.join(KINDS)}"
            )
        if self.level is not None:
            if self.compression == "none":
                raise UsageError(f"level is {self.level} and nothing is compressed", hint="pass compression=")
            low, high = _LEVELS[self.compression]
            whole(self.level, "level", least=low, most=high)
        if size % structs.SECTOR:
            raise UsageError(
                f"a volume of {size} bytes is no multiple of 512, which is what QCOW2 holds",
                hint="choose a format for any size, such as raw or vsnap",
            )
        limit = largest(cluster, packed=self.compression != "none")
        if size > limit:
            raise UsageError(
                f"clusters of {cluster} bytes hold volumes up to {limit} bytes ({format_size(limit)}),"
                f" not {size}",
                hint="choose larger clusters",
            )


def largest(cluster: int, *, packed: bool) -> int:
    """Bytes of the largest volume that fits, if all of it is data, with the maps it takes.

    The L1 table has at most 4 Mi entries and the refcount table 1 Mi; host offsets have 56 bits,
    and those of compressed clusters ``62 - (cluster_bits - 8)``.
    """
    bits = cluster.bit_length() - 1
    mapped = structs.MAX_L1 // 8 * (cluster // 8) * cluster
    counted = structs.MAX_REFCOUNT_TABLE // 8 * (cluster // 2) * cluster
    host = min(counted, 1 << 56, 1 << (62 - (bits - 8)) if packed else MAX_SIZE)
    # Of each cluster of data, 8 bytes of map and 2 of refcounts; the tables of these, and what
    # packing leaves unused at the end of a table's clusters, is below an eighth of that for 1 KiB.
    fits = (host - structs.MAX_L1 - structs.MAX_REFCOUNT_TABLE) * cluster // (cluster + 16)
    return min(mapped, fits) // structs.SECTOR * structs.SECTOR
