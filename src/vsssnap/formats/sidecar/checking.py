"""Holding an image against its side-car."""

from __future__ import annotations

import contextlib
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from vsssnap._units import MIB
from vsssnap.blocks.extent import Extent, ExtentKind, grid, pair
from vsssnap.blocks.pipeline import pump
from vsssnap.blocks.reader import BlockReader
from vsssnap.errors import CorruptImageError, DeviceReadError, UnsupportedFeatureError
from vsssnap.formats.base import Finding
from vsssnap.formats.sidecar.reader import matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vsssnap.formats.base import ImageReader
    from vsssnap.formats.sidecar.reader import SidecarReader

_UNIT: Final = MIB  # bytes that a worker reads and compares at once
_BATCH: Final = 128  # units between two results

_WRONG: Final = "is not what was saved: its checksum differs"
_LOST: Final = "cannot be read"

# (first byte, end, what is wrong): what a worker found in its unit.
_Damage = tuple[int, int, str]


def verify_with_sidecar(
    reader: ImageReader, sidecar: SidecarReader, progress: Callable[[int], None]
) -> Iterator[Finding]:
    """Compare all of an image with its side-car, in several threads; then the side-car itself is checked.

    What neither the image nor the side-car has data for is passed over, so a sparse image takes
    the time of its data.

    Args:
        reader: The image.
        sidecar: Its side-car.
        progress: Called with the number of bytes settled since the last call, in the thread that
            iterates; what it raises ends the check.

    Yields:
        Every damage: neighbouring blocks with the same trouble joined, ``extent`` telling where in
        the volume, then what is wrong with the side-car's own table.

    Raises:
        CorruptImageError: the side-car is of another image.
    """
    sidecar.require(reader.size, reader.format)
    return _verify(reader, sidecar, progress)


def _verify(
    reader: ImageReader, sidecar: SidecarReader, progress: Callable[[int], None]
) -> Iterator[Finding]:
    unit = max(_UNIT, sidecar.block_size)
    units = grid(_wanted(reader, sidecar), unit, reader.size)
    settled = 0
    pending: _Damage | None = None
    while batch := list(islice(units, _BATCH)):
        found: list[_Damage] = []

        def done(_: tuple[int, int], damage: list[_Damage], found: list[_Damage] = found) -> None:
            found += damage

        pump(
            batch,
            lambda piece, buffer: _check(reader, sidecar, piece[0], memoryview(buffer)[: piece[1]]),
            done,
            buffer_size=min(unit, reader.size),
            ordered=True,
        )
        for damage in found:
            if pending is not None and pending[1] == damage[0] and pending[2] == damage[2]:
                pending = (pending[0], damage[1], damage[2])
            else:
                if pending is not None:
                    yield _finding(reader, pending)
                pending = damage
        end = sum(batch[-1])
        progress(end - settled)
        settled = end
    if pending is not None:
        yield _finding(reader, pending)
    if settled < reader.size:
        progress(reader.size - settled)
    yield from sidecar.verify()


def _wanted(reader: ImageReader, sidecar: SidecarReader) -> Iterator[Extent]:
    """DATA wherever the image or the side-car may have any."""
    known = pair(reader.extents(), sidecar.stored(0, reader.size))
    for offset, length, here, there in known:
        zero = here in _ZEROS and there is ExtentKind.ZERO
        yield Extent(offset, length, ExtentKind.ZERO if zero else ExtentKind.DATA)


_ZEROS: Final = frozenset({ExtentKind.ZERO, ExtentKind.HOLE, ExtentKind.EXCLUDED})


def _check(reader: ImageReader, sidecar: SidecarReader, offset: int, view: memoryview) -> list[_Damage]:
    """Compare the blocks of one unit; runs in several threads."""
    expected = list(_expected(sidecar, offset, len(view)))
    damage: list[_Damage] = []
    if _read(reader, sidecar, offset, view):
        for at, length, digest in expected:
            if not matches(view[at - offset : at - offset + length], digest):
                damage.append((at, at + length, _WRONG))
        return damage
    for at, length, digest in expected:
        block = view[at - offset : at - offset + length]
        if not _read(reader, sidecar, at, block):
            damage.append((at, at + length, _LOST))
        elif not matches(block, digest):
            damage.append((at, at + length, _WRONG))
    return damage


def _expected(sidecar: SidecarReader, offset: int, length: int) -> Iterator[tuple[int, int, bytes]]:
    """The digests of a range that can be read; the side-car's own check tells of damaged pages."""
    for at in range(offset, offset + length, sidecar.block_size):
        # A unit may lie on two pages: each block is asked for by itself.
        with contextlib.suppress(CorruptImageError, DeviceReadError):
            yield from sidecar.blocks_of(at, min(sidecar.block_size, offset + length - at))


def _read(reader: ImageReader, sidecar: SidecarReader, offset: int, view: memoryview) -> bool:
    """Fill ``view``, with zeros for what was UNREADABLE then; False if the image cannot be read now."""
    try:
        # Not the image's own `preadinto`, which would raise instead of telling what differs.
        sidecar.fill(view, offset, partial(BlockReader.preadinto, reader))
    except (CorruptImageError, DeviceReadError, UnsupportedFeatureError):
        return False
    return True


def _finding(reader: ImageReader, damage: _Damage) -> Finding:
    first, end, trouble = damage
    # Only in a raw image do volume and file agree about places.
    offset = first if reader.format == "raw" else None
    return Finding(
        "block", offset, f"bytes {first} to {end} of the volume: {trouble}", Extent(first, end - first)
    )
