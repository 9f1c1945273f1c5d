from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from vsssnap.errors import UnknownFormatError, UsageError
from vsssnap.formats import registry
from vsssnap.formats.base import ImageFormat, ImageReader, ImageWriter, Probe, ResolveParent
from vsssnap.formats.raw import RawFormat
from vsssnap.formats.storage import MemoryStorage, Storage
from vsssnap.formats.vhd import VhdFormat, VhdOptions
from vsssnap.metadata import ImageMetadata

QCOW2 = b"QFI\xfb\0\0\0\3"


class Guest(ImageFormat):
    """A format that knows the bytes GUEST; what a test changes, it changes in a subclass."""

    name = "guest"
    suffixes: ClassVar[tuple[str, ...]] = (".guest", ".enc.raw")
    options_type: ClassVar[type] = dict

    def probe(self, seen: Probe, /) -> int:
        return 80 if seen.head.startswith((b"GUEST", QCOW2)) else 0

    def open(
        self, storage: Storage, /, *, resolve_parent: ResolveParent | None = None, recover: bool = False
    ) -> ImageReader:
        raise AssertionError("never opened here")

    def create(
        self, storage: Storage, size: int, /, *, options: object = None, parent: ImageReader | None = None
    ) -> ImageWriter:
        raise AssertionError("never created here")


class Broken(Guest):
    """Fails whenever it is asked something."""

    name = "broken"
    suffixes: ClassVar[tuple[str, ...]] = ()

    def probe(self, seen: Probe, /) -> int:
        raise ZeroDivisionError("a bug of the guest")


class Unmakable(Guest):
    """Cannot even be made."""

    name = "unmakable"

    def __init__(self) -> None:
        raise ZeroDivisionError("a bug of the guest")


@pytest.fixture
def guest() -> Iterator[None]:
    with registry._REGISTRY.lent("guest", Guest):
        yield


def seen(head: bytes, name: str = "") -> Probe:
    return Probe(head, head, name, len(head))


def name_of(found: ImageFormat) -> Any:  # noqa: ANN401 - a class attribute of any driver
    return type(found).name


def test_raw_is_there() -> None:
    assert isinstance(registry.by_name("raw"), RawFormat)
    assert registry.available()["raw"] == ""


def test_unknown_name_lists_those_known() -> None:
    with pytest.raises(UsageError, match=r"there is no image format 'rwa': known are .*raw"):
        registry.by_name("rwa")


@pytest.mark.parametrize("path", ["x.raw", "/a/b.c/X.RAW", "x.guest.dd", ".raw"])
def test_suffix_chooses_the_format(path: str) -> None:
    assert name_of(registry.by_suffix(path)) == "raw"


def test_suffixes_are_those_of_the_drivers() -> None:
    for name, suffixes in registry._SUFFIXES.items():
        assert registry.by_name(name).suffixes == suffixes
    assert set(registry._SUFFIXES) == set(registry._REGISTRY._builtins)


def test_name_and_head_load_no_format_but_their_own(tmp_path: Path) -> None:
    program = """
import sys, vsssnap
vsssnap.create_image("a.vsnap", 0).finish()
vsssnap.open_image("a.vsnap").close()
print([name for name in ("qcow2", "vhd", "vhdx", "vmdk") if f"vsssnap.formats.{name}" in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.usefixtures("guest")
def test_longest_suffix_decides() -> None:
    assert name_of(registry.by_suffix("x.enc.raw")) == "guest"
    assert name_of(registry.by_suffix("x.raw")) == "raw"


@pytest.mark.parametrize("path", ["x", "raw", "x.rawx", "x.raw/y", ""])
def test_unknown_suffix_is_an_error_that_names_the_known(path: str) -> None:
    with pytest.raises(UnknownFormatError, match=r"no image format has this suffix: .*\.raw") as caught:
        registry.by_suffix(path)
    assert caught.value.path == path


@pytest.mark.usefixtures("guest")
def test_content_chooses_the_format() -> None:
    assert name_of(registry.by_probe(seen(b"GUEST...", "x.img"), "x.img")) == "guest"


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize("name", ["x.raw", "X.DD"])
def test_name_that_says_raw_is_believed_before_any_magic(name: str) -> None:
    assert name_of(registry.by_probe(seen(QCOW2, name), name)) == "raw"


@pytest.mark.parametrize("head", [b"", bytes(512), b"\xeb\x52\x90NTFS    "])
def test_unrecognised_content_is_never_taken_for_raw(head: bytes) -> None:
    with pytest.raises(UnknownFormatError, match=r'recognises it \(tried .*raw.*format="raw" if it is raw'):
        registry.by_probe(seen(head, "x.img"), "x.img")


def test_guest_that_fails_to_probe_does_not_keep_others_from_it(caplog: pytest.LogCaptureFixture) -> None:
    with (
        registry._REGISTRY.lent("guest", Guest),
        registry._REGISTRY.lent("broken", Broken),
        caplog.at_level(logging.WARNING, "vsssnap"),
    ):
        assert name_of(registry.by_probe(seen(b"GUEST"), "x")) == "guest"
    assert "format 'broken' failed to probe a file" in caplog.text


def test_guest_that_cannot_be_made_does_not_keep_others_from_it(caplog: pytest.LogCaptureFixture) -> None:
    with (
        registry._REGISTRY.lent("unmakable", Unmakable),
        caplog.at_level(logging.WARNING, "vsssnap"),
    ):
        assert name_of(registry.by_suffix("x.raw")) == "raw"
    assert "format 'unmakable' cannot be made" in caplog.text


class Sure(Guest):
    """As sure of everything as can be."""

    def probe(self, seen: Probe, /) -> int:
        return 100


def test_name_decides_between_formats_that_are_equally_sure() -> None:
    storage = MemoryStorage()
    VhdFormat().create(storage, 512, options=VhdOptions(kind="fixed")).finish(ImageMetadata())
    sector = bytes(storage.data[-512:])
    for first in ("a guest", "z guest"):
        with registry._REGISTRY.lent(first, Sure):
            for name, wanted in (("x.vhd", "vhd"), ("x.guest", "guest")):
                seen = Probe(QCOW2.ljust(512, b"\0"), QCOW2.ljust(512, b"\0") + sector, name, 1024)
                assert registry.by_probe(seen, name).name == wanted
