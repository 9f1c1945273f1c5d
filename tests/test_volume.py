"""How callers name volumes."""

from __future__ import annotations

from pathlib import Path

import pytest

from vsssnap._volume import find, name_of
from vsssnap.errors import UsageError
from vsssnap.providers import SnapshotVolume


class Named:
    name = "store"


@pytest.mark.parametrize(
    ("volume", "name"),
    [
        ("/dev/sda", "/dev/sda"),
        (b"/dev/sda", "/dev/sda"),
        (Path("/srv"), "/srv"),
        ("C:", "C:"),
        (Named(), "store"),
    ],
)
def test_name_is_the_callers_spelling(volume: object, name: str) -> None:
    assert name_of(volume) == name


@pytest.mark.parametrize("volume", ["", b"", "a\0b", b"\0", 7, None, object(), type("X", (), {"name": 3})()])
def test_what_is_no_volume_says_what_is(volume: object) -> None:
    with pytest.raises(UsageError, match=r"is no volume: (name a device|pass a path)"):
        name_of(volume)


def volumes(*devices: str) -> dict[str, SnapshotVolume]:
    return {
        name: SnapshotVolume(name=name, device=device, size=1)
        for name, device in zip("abc", devices, strict=False)
    }


def test_only_volume_needs_no_name() -> None:
    assert find(volumes("x"), None).name == "a"


def test_two_spellings_of_one_volume_need_no_name() -> None:
    assert find(volumes("x", "x"), None).device == "x"


def test_one_of_several_is_named() -> None:
    assert find(volumes("x", "y"), "b").device == "y"


def test_several_without_a_name_are_listed() -> None:
    with pytest.raises(UsageError, match="has several volumes: a, b: name one to open"):
        find(volumes("x", "y"), None)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="has no volume 'z': it has a, b"):
        find(volumes("x", "y"), "z")
