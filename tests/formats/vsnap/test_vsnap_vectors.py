"""The test vectors of the specification, by the library and by the stand-alone reader beside it."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vsnap_alone import PROGRAM, read_alone
from vsnap_images import image_of, noise
from vsnap_vectors import FOLDER, Vector, vectors
from vsssnap.blocks.extent import ExtentKind
from vsssnap.formats.base import Depth
from vsssnap.imaging.opening import open_image
from vsssnap.imaging.verifying import verify_image

TABLE: list[dict[str, Any]] = json.loads((FOLDER / "vectors.json").read_text(encoding="utf-8"))
NAMES = [row["file"] for row in TABLE]
ROWS = pytest.mark.parametrize("row", TABLE, ids=NAMES)


@pytest.fixture(scope="module")
def made() -> dict[str, Vector]:
    return {f"{vector.name}.vsnap": vector for vector in vectors()}


def test_every_vector_is_in_the_table() -> None:
    assert sorted(NAMES) == sorted(path.name for path in FOLDER.glob("*.vsnap"))


@ROWS
def test_file_is_the_one_of_the_table(row: dict[str, Any]) -> None:
    assert hashlib.sha256((FOLDER / row["file"]).read_bytes()).hexdigest() == row["file_sha256"]


@ROWS
def test_vector_is_read(row: dict[str, Any], made: dict[str, Vector]) -> None:
    with open_image(FOLDER / row["file"]) as reader:
        assert reader.size == row["size"]
        assert reader.info()["identity"] == row["content_root"]
        extents = list(reader.extents())
        assert [[e.offset, e.length, e.kind.value] for e in extents] == row["extents"]
        if row["content_sha256"] is None:
            assert reader.pread(3, row["size"] // 2) == b"!\0\0"
            return
        content = b"".join(
            bytes(e.length) if e.kind is ExtentKind.UNREADABLE else reader.pread(e.length, e.offset)
            for e in extents
        )
        assert content == made[row["file"]].data
        assert hashlib.sha256(content).hexdigest() == row["content_sha256"]


@ROWS
def test_vector_is_sound(row: dict[str, Any]) -> None:
    report = verify_image(FOLDER / row["file"], depth=Depth.CONTENT)
    assert report.ok, report.findings


@ROWS
def test_the_stand_alone_reader_reads_it(row: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out" if row["content_sha256"] is not None else None  # 32 TiB are no file here
    found = read_alone(FOLDER / row["file"], [FOLDER / name for name in row["parents"]], out)
    assert found["size"] == row["size"]
    assert out is None or hashlib.sha256(out.read_bytes()).hexdigest() == row["content_sha256"]
    assert found["content_root"] == row["content_root"]
    assert found["sha256"] == row["content_sha256"]
    assert found["extents"] == row["extents"]


@ROWS
def test_raw_blocks_are_written_bit_for_bit(row: dict[str, Any], made: dict[str, Vector]) -> None:
    """What depends on no version of libzstd; of others the content root is the same."""
    same = made[row["file"]].file == (FOLDER / row["file"]).read_bytes()
    assert same or not row["exact"]


def test_stand_alone_reader_is_short_and_stands_alone() -> None:
    text = PROGRAM.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 200
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level
            names.add(str(node.module).partition(".")[0])
    assert names - {"xxhash", "zstandard"} <= sys.stdlib_module_names


@pytest.mark.parametrize("place", [0, 30, 200, -8000, -30])
def test_stand_alone_reader_refuses_damage(place: int, tmp_path: Path) -> None:
    file = bytearray((FOLDER / "every-state.vsnap").read_bytes())
    file[place] ^= 8
    (tmp_path / "bad.vsnap").write_bytes(file)
    command = [sys.executable, "-I", str(PROGRAM), str(tmp_path / "bad.vsnap")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("vsnap_reader: ")


def test_stand_alone_reader_reads_default_options(tmp_path: Path) -> None:
    """Segments smaller than the chunk, a last chunk and cell that are short."""
    data = noise(1, 300_000) + bytes(900_000) + b"text" * 300_000 + noise(2, 77)
    (tmp_path / "a.vsnap").write_bytes(image_of(data, options=None))
    found = read_alone(tmp_path / "a.vsnap", out=tmp_path / "a.raw")
    assert found["sha256"] == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "a.raw").read_bytes() == data
