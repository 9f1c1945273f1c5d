"""VHD images with damaged structures."""

from __future__ import annotations

import pytest

from damaged_images import Change, cuts, flips, problems
from vhd_images import sample


def changes(image: bytes, *, every: bool) -> list[Change]:
    table = 1536
    found = [*cuts(len(image), 200 if every else 20)]
    for first, end in (
        (0, 85),
        (512, 512 + 64),
        (512 + 576, 512 + 768),
        (len(image) - 512, len(image) - 427),
    ):
        found += flips(image, first, end, every=every)
    found += flips(image, 85, 512, every=every, step=1 if every else 61)
    found += flips(image, 512 + 64, 1536, every=every, step=1 if every else 61)
    # Nothing tells a wrong entry from a right one if it names another free place, or a wrong bit.
    found += flips(image, table, table + 12, every=True, silent=True)
    block = int.from_bytes(image[table : table + 4], "big") * 512
    found += flips(image, block, block + 128, every=every, silent=True, step=1 if every else 16)
    found += [
        Change(
            f"entry {number} is {value:#x}", ((table + 4 * number, value.to_bytes(4, "big")),), silent=True
        )
        for number in range(3)
        for value in (0, 1, 3, 4, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
    ]
    found += sealed(image)
    return found


def sealed(image: bytes) -> list[Change]:
    """Absurd values under a right checksum."""
    found = []
    for name, at, size in (
        ("data offset", 16, 8),
        ("current size", 48, 8),
        ("disk type", 60, 4),
        ("table offset", 512 + 16, 8),
        ("entries", 512 + 28, 4),
        ("block size", 512 + 32, 4),
        ("locator length", 512 + 576 + 8, 4),
        ("locator offset", 512 + 576 + 16, 8),
    ):
        most = (1 << (8 * size)) - 1
        for value in (0, 1, 511, 512, 513, 1024, 3 << 19, 1 << 31, most - 511, most - 1, most):
            record = bytearray(image[:512] if at < 512 else image[512:1536])
            within, place = (at, 64) if at < 512 else (at - 512, 36)
            record[within : within + size] = min(value, most).to_bytes(size, "big")
            total = sum(record) - sum(record[place : place + 4])
            record[place : place + 4] = (~total & 0xFFFFFFFF).to_bytes(4, "big")
            patches = (
                [(0, bytes(record)), (len(image) - 512, bytes(record))]
                if at < 512
                else [(512, bytes(record))]
            )
            found.append(Change(f"{name} is {value}", tuple(patches), silent=True))
    return found


@pytest.mark.parametrize("child", [False, True], ids=["dynamic", "child"])
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)], ids=["some", "all"])
def test_damaged_structures_give_right_bytes_or_an_image_error(child: bool, every: bool) -> None:
    files, name, data = sample(child=child)
    assert problems("vhd", files, name, data, changes(files[name], every=every)) == []


def test_damaged_parents_give_right_bytes_or_an_image_error() -> None:
    files, name, data = sample(child=True)
    parent = files["parent.vhd"]
    changes = [*cuts(len(parent), 20), *flips(parent, 512, 1536, step=23)]
    changes += [*flips(parent, 0, 85, step=3), *flips(parent, len(parent) - 512, len(parent) - 427)]
    changes += [
        Change(f"entry is {value:#x}", ((1536, value.to_bytes(4, "big")),), silent=True)
        for value in (0, 1, 3, 4, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
    ]
    assert problems("vhd", files, name, data, changes, target="parent.vhd") == []
