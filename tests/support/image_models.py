"""An image held against the bytes that it must hold."""

from __future__ import annotations

import random

from vsssnap import Depth
from vsssnap.formats import ImageReader


def reads_as(image: ImageReader, model: bytes, dice: random.Random, depth: Depth) -> None:
    """All of it, parts of it, its extents, and what `verify` says; closes the image."""
    with image:
        assert image.pread(image.size, 0) == model
        at = 0
        for extent in image.extents():
            assert extent.offset == at
            at = extent.end
            if extent.reads_as_zero:
                assert not model[extent.offset : extent.end].strip(b"\0")
        assert at == len(model)
        for _ in range(5):
            first = dice.randrange(len(model))
            length = dice.randrange(len(model) - first) + 1
            assert image.pread(length, first) == model[first : first + length]
        assert list(image.verify(depth, lambda _: None)) == []
