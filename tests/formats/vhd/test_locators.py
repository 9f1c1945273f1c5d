"""Where a differencing image says that its parent lies, byte by byte, and each place by itself."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from sources import BytesReader
from vsssnap import open_image, save_image
from vsssnap.errors import ParentMismatchError

MIB = 1 << 20
HEADER = 512
NAME = HEADER + 64  # 512 bytes of UTF-16BE
LOCATORS = HEADER + 576  # eight of 24 bytes


def chain(folder: Path, name: str = "parent.vhd") -> tuple[Path, Path]:
    (folder / "deep").mkdir()
    parent, child = folder / "deep" / name, folder / "child.vhd"
    save_image(BytesReader(b"\1" * MIB), parent, wrap=False)
    with open_image(parent) as below:
        save_image(BytesReader(b"\1" * MIB), child, parent=below, wrap=False)
    return parent, child


def places(image: bytes) -> dict[bytes, str]:
    """The texts by platform code, as the specification lays them out."""
    found = {}
    for number in range(8):
        code, space, length, reserved, offset = struct.unpack_from(">4sIIIQ", image, LOCATORS + 24 * number)
        if code == bytes(4):
            assert (space, length, reserved, offset) == (0, 0, 0, 0)
            continue
        assert (reserved, offset % 512, space % 512) == (0, 0, 0)
        assert length <= space
        assert not any(image[offset + length : offset + space])
        found[code] = image[offset : offset + length].decode("utf-16-le")
    return found


def without(path: Path, *places: int) -> None:
    """Blank locators (0 to 7) or the name (8), and mend the checksum of the header."""
    image = bytearray(path.read_bytes())
    for place in places:
        at, length = (NAME, 512) if place == 8 else (LOCATORS + 24 * place, 24)
        image[at : at + length] = bytes(length)
    image[HEADER + 36 : HEADER + 40] = bytes(4)
    total = ~sum(image[HEADER : HEADER + 1024]) & 0xFFFFFFFF
    image[HEADER + 36 : HEADER + 40] = struct.pack(">I", total)
    path.write_bytes(image)


@pytest.mark.posix("the paths are those of Linux")
def test_both_locators_are_those_of_the_specification(tmp_path: Path) -> None:
    parent, child = chain(tmp_path, "pär.vhd")
    image = child.read_bytes()
    assert places(image) == {b"W2ku": str(parent), b"W2ru": ".\\deep\\pär.vhd"}
    assert image[NAME : NAME + 512].decode("utf-16-be").rstrip("\0") == str(parent)


@pytest.mark.parametrize("kept", ["W2ku", "W2ru", "name"])
def test_each_of_them_finds_the_parent_alone(kept: str, tmp_path: Path) -> None:
    _, child = chain(tmp_path)
    order = [code.decode() for code in places(child.read_bytes())] + ["name"]
    assert set(order) == {"W2ku", "W2ru", "name"}
    without(child, *(8 if name == "name" else order.index(name) for name in order if name != kept))
    with open_image(child) as image:
        assert image.pread(MIB, 0) == b"\1" * MIB
        (told,) = image.info()["parents"]
    keys = {"W2ku": "absolute", "W2ru": "relative", "name": "name"}
    assert [key for key in keys.values() if told[key]] == [keys[kept]]


def test_without_any_of_them_nothing_is_guessed(tmp_path: Path) -> None:
    _, child = chain(tmp_path)
    without(child, 0, 1, 8)
    with pytest.raises(ParentMismatchError, match="does not say where that is"):
        open_image(child)
