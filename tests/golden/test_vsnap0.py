"""Images of `.vsnap` format 0 that were written once: read today as they were read then."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from vsnap_alone import read_alone
from vsnap_golden import FOLDER, METADATA, NAMES, contents
from vsssnap.blocks.extent import ExtentKind
from vsssnap.formats.base import Depth, ImageReader
from vsssnap.imaging.opening import open_image
from vsssnap.imaging.verifying import verify_image
from vsssnap.metadata import ImageMetadata

GOLDEN: dict[str, dict[str, Any]] = json.loads((FOLDER / "golden.json").read_text(encoding="utf-8"))
DATA = dict(zip(NAMES, contents(), strict=True))


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.vsnap"


def ancestors(name: str) -> list[Path]:
    return [path_of(each) for each in NAMES[: NAMES.index(name)]]


def read_all(reader: ImageReader) -> bytes:
    parts = [
        bytes(e.length) if e.kind is ExtentKind.UNREADABLE else reader.pread(e.length, e.offset)
        for e in reader.extents()
    ]
    return b"".join(parts)


@pytest.mark.parametrize("name", NAMES)
def test_file_is_the_one_that_was_kept(name: str) -> None:
    """Else the rest proves nothing; git may have changed its line ends."""
    assert hashlib.sha256(path_of(name).read_bytes()).hexdigest() == GOLDEN[name]["file_sha256"]


@pytest.mark.parametrize("recover", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_content_and_states_are_read_as_before(name: str, recover: bool) -> None:
    with open_image(path_of(name), recover=recover) as reader:
        data = read_all(reader)
        assert hashlib.sha256(data).hexdigest() == GOLDEN[name]["content_sha256"]
        assert data == DATA[name]
        assert [[e.offset, e.length, e.kind.value] for e in reader.extents()] == GOLDEN[name]["extents"]


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_as_before(name: str) -> None:
    with open_image(path_of(name)) as reader:
        info = json.loads(json.dumps(reader.info()))
        assert {key: info[key] for key in GOLDEN[name]["info"]} == GOLDEN[name]["info"]


@pytest.mark.parametrize("name", NAMES)
def test_metadata_is_as_before(name: str) -> None:
    with open_image(path_of(name)) as reader:
        assert reader.metadata == (METADATA if name != "child" else ImageMetadata())


@pytest.mark.parametrize("depth", Depth)
@pytest.mark.parametrize("name", NAMES)
def test_verification_finds_nothing(name: str, depth: Depth) -> None:
    report = verify_image(path_of(name), depth=depth)
    assert report.ok, report.findings
    assert report.depth is depth


@pytest.mark.parametrize("name", NAMES)
def test_the_stand_alone_reader_agrees(name: str, tmp_path: Path) -> None:
    found = read_alone(path_of(name), ancestors(name), tmp_path / "out.raw")
    assert found["sha256"] == GOLDEN[name]["content_sha256"]
    assert found["content_root"] == GOLDEN[name]["info"]["identity"]
    assert found["extents"] == GOLDEN[name]["extents"]
    assert (tmp_path / "out.raw").read_bytes() == DATA[name]
