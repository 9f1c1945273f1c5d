"""The map of a shadow copy: exact at the seams of its segments, and no larger for a larger volume."""

from __future__ import annotations

from volsnap_model import BLOCK, Volsnap, model_of
from vsssnap.volumes import ShadowVolume
from vsssnap.volumes.shadow.bitmap import SEGMENT, SEGMENT_BLOCKS
from vsssnap.volumes.shadow.table import OVERLAID, OWN, UNUSED, VOLUME
from vsssnap.volumes.shadow.view import View


def view_of(model: Volsnap, number: int = 1) -> View:
    level = ShadowVolume(model.export().reader()).stores[number - 1]._level
    return level.view(level.bitmaps())


def test_pieces_join_at_the_seams_of_segments() -> None:
    model = Volsnap(1, blocks=3 * SEGMENT_BLOCKS, storage_blocks=40)
    seams = [number * SEGMENT_BLOCKS + by for number in (1, 2) for by in (-1, 0)]
    for block in seams:
        model.write(block)
    model.snapshot()
    for block in seams:
        model.write(block)
    view = view_of(model)
    for offset, length in (
        (0, view.size),
        (SEGMENT - BLOCK - 7, 2 * BLOCK + 14),
        (SEGMENT, 1),
        (SEGMENT - 1, 2),
    ):
        at = offset
        for start, count, _, _ in view.pieces(offset, length):
            assert start == at
            assert count > 0
            at += count
        assert at == offset + length
    kinds = [kind for _, _, kind, _ in view.pieces(SEGMENT - 2 * BLOCK, 4 * BLOCK)]
    assert kinds.count(OWN) == 2
    assert list(view.pieces(5, 0)) == []


def test_a_block_is_found_in_the_first_store_that_has_it() -> None:
    model = Volsnap(2)
    block = next(block for block in model.places if block in model.used)
    model.snapshot()
    model.snapshot()
    model.write(block)
    model.snapshot()
    model.write(block)
    one, two = model.copies[1].descriptors[0][2], model.copies[2].descriptors[0][2]
    places = [next(view_of(model, number).pieces(block * BLOCK, BLOCK)) for number in (1, 2, 3)]
    assert [(kind, place) for _, _, kind, place in places] == [(OWN, one), (OWN, one), (OWN, two)]


def test_overlays_of_newer_copies_are_not_shown() -> None:
    model = Volsnap(3)
    block = next(block for block in model.places if block in model.used)
    model.snapshot()
    model.overlay(model.snapshot(), block, 0xFF)
    older, newer = (list(view_of(model, number).pieces(block * BLOCK, BLOCK)) for number in (1, 2))
    assert [kind for _, _, kind, _ in older] == [VOLUME]
    assert [(length, kind) for _, length, kind, _ in newer] == [(4096, OWN | OVERLAID), (12288, VOLUME)]


def test_memory_does_not_grow_with_the_volume() -> None:
    model = model_of(4, copies=2, far=200 * SEGMENT_BLOCKS)
    view = view_of(model)
    assert view.size > 200 * SEGMENT
    total = sum(length for _, length, kind, _ in view.pieces(0, view.size) if kind == UNUSED)
    assert total > 199 * SEGMENT
    assert len(view._segments) <= 64
    # One run takes one entry, however long it is.
    assert sum(len(starts) for starts, _ in view._segments.values()) < 64 * 3 + 2000
