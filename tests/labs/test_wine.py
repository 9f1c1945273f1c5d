"""The library under a real Windows Python, with Wine in place of Windows."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import corpus_images
import oracles
import portable
import wine
from requirements import require_program

MIB = 1 << 20

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1000)]

POSIX = ("vsssnap.providers.reflink", "vsssnap.providers.static")
"""Modules that are there for Linux alone."""


@pytest.fixture(scope="module")
def lab() -> Iterator[wine.Wine]:
    found = wine.lab()
    yield found
    found.stop()


def test_every_module_is_imported_by_a_windows_python(lab: wine.Wine, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"POSIX = {POSIX!r}\n"
        """
import importlib, pkgutil, sys, vsssnap
assert sys.platform == "win32"
for module in pkgutil.walk_packages(vsssnap.__path__, "vsssnap."):
    # The command line needs an extra that is not installed here; these are the other system's.
    if not module.name.startswith(("vsssnap.cli", "vsssnap._posix", *POSIX)):
        importlib.import_module(module.name)
from vsssnap.formats import available
assert not any(available().values()), available()
print("all imported")
"""
    )
    done = lab.python(wine.windows(program))
    assert "all imported" in done.stdout, done.stdout


# The contract and the longest chain take long there; what they ask of files is tried below.
FORMATS = (
    "tests/formats/vhd/test_vhd.py",
    "tests/formats/vmdk/test_vmdk.py",
    "-k",
    "not contract and not stack",
)


@pytest.mark.parametrize("part", [portable.LIBRARY, FORMATS], ids=["library", "formats"])
def test_portable_tests_pass_under_a_windows_python(
    lab: wine.Wine, part: tuple[str, ...], tmp_path: Path
) -> None:
    assert lab.pytest(*portable.PYTEST, *part, scratch=tmp_path) > 100


@pytest.mark.long
@pytest.mark.timeout(1600)
def test_all_that_is_portable_passes_under_a_windows_python(lab: wine.Wine, tmp_path: Path) -> None:
    program = wine.windows(Path(portable.__file__))
    assert lab.pytest(program, scratch=tmp_path, timeout=1500) > 1000


def test_images_are_written_verified_and_restored(lab: wine.Wine, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        r"""
import os, random, sys
from vsssnap import SupportsPread, open_image, restore_image, save_image, verify_image
from vsssnap.errors import TargetRefusedError
from vsssnap.formats import available

os.chdir(sys.argv[1])
rng = random.Random(1)
data = rng.randbytes(2 << 20) + bytes(5 << 20) + rng.randbytes(700 << 10)

class Source:
    size = len(data)
    def pread(self, length, offset):
        return data[offset : offset + length]

for name in available():
    image = f"image.{name}"
    save_image(Source(), image)
    report = verify_image(image)
    assert report.ok, (name, report)
    try:
        save_image(Source(), image)
    except TargetRefusedError:
        pass
    else:
        raise AssertionError(f"{image} was replaced")
    save_image(Source(), image, replace=True)
    with open_image(image) as reader:
        assert reader.pread(reader.size, 0) == data, name
    restore_image(image, f"{name}.restored", verify=True)
    with open(f"{name}.restored", "rb") as file:
        assert file.read() == data, name
    print(name, "is whole")
assert not [name for name in os.listdir() if name.endswith(".partial")]
"""
    )
    done = lab.python(wine.windows(program), wine.windows(tmp_path))
    assert done.returncode == 0, done.stdout
    formats = ("qcow2", "raw", "vhd", "vhdx", "vmdk", "vsnap")
    assert {f"{name} is whole" for name in formats} <= set(done.stdout.splitlines())


# Images that the Windows Python writes: the name, the options, the one behind it, and its kind for `oracles`.
WRITTEN = (
    ("dynamic.vhd", "VhdOptions()", "", "vhd"),
    ("fixed.vhd", "VhdOptions(kind='fixed')", "", "vhd"),
    ("child.vhd", "VhdOptions()", "dynamic.vhd", "vhd-diff"),
    ("dynamic.vhdx", "VhdxOptions()", "", "vhdx"),
    ("fixed.vhdx", "VhdxOptions(fixed=True)", "", "vhdx"),
    ("4kn.vhdx", "VhdxOptions(logical_sector_size=4096)", "", "vhdx-4kn"),
    ("child.vhdx", "VhdxOptions()", "dynamic.vhdx", "vhdx-diff"),
    ("plain.qcow2", "Qcow2Options()", "", "qcow2"),
    ("zstd.qcow2", "Qcow2Options(compression='zstd')", "", "qcow2-zstd"),
    ("zlib.qcow2", "Qcow2Options(compression='zlib')", "", "qcow2-zlib"),
    ("child.qcow2", "Qcow2Options()", "plain.qcow2", "qcow2-backing"),
    ("sparse.vmdk", "VmdkOptions()", "", "vmdk"),
    ("stream.vmdk", "VmdkOptions(kind='streamOptimized')", "", "vmdk-stream"),
)


def test_images_of_a_windows_python_are_read_by_others(lab: wine.Wine, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"WRITTEN = {WRITTEN!r}\n"
        """
import os, sys
from vsssnap import open_image, save_image
from vsssnap.formats.qcow2 import Qcow2Options
from vsssnap.formats.vhd import VhdOptions
from vsssnap.formats.vhdx import VhdxOptions
from vsssnap.formats.vmdk import VmdkOptions

os.chdir(sys.argv[1])
for name, options, parent, kind in WRITTEN:
    with open_image("child.raw" if parent else "base.raw") as source:
        if parent:
            with open_image(parent) as below:
                save_image(source, name, options=eval(options), parent=below, wrap=False)
        else:
            save_image(source, name, options=eval(options), wrap=False)
print("all written")
"""
    )
    dice = random.Random(9)
    base = dice.randbytes(3 * MIB) + bytes(2 * MIB) + dice.randbytes(MIB)
    child = bytearray(base)
    child[MIB : MIB + 4096], child[4 * MIB : 4 * MIB + 70_000] = dice.randbytes(4096), b"x" * 70_000
    (tmp_path / "base.raw").write_bytes(base)
    (tmp_path / "child.raw").write_bytes(child)

    done = lab.python(wine.windows(program), wine.windows(tmp_path))

    assert "all written" in done.stdout, done.stdout
    for name, _, parent, kind in WRITTEN:
        path, wanted = tmp_path / name, oracles.content_of(bytes(child) if parent else base)
        assert oracles.complaints(path, kind) == [], name
        for family in oracles.readers(kind):
            behind = [tmp_path / parent] if parent else []
            assert oracles.content(family, path, kind, parents=behind) == wanted, (name, family)


def test_images_of_others_are_read_by_a_windows_python(lab: wine.Wine, tmp_path: Path) -> None:
    """Of QEMU, and a child of Windows with its parent from the corpus."""
    data = random.Random(10).randbytes(2 * MIB) + bytes(3 * MIB) + b"end" * 65536
    (tmp_path / "content.raw").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    wanted = {}
    for name, options in (
        ("dynamic.vpc", "force_size=on"),
        ("fixed.vpc", "subformat=fixed,force_size=on"),
        ("dynamic.vhdx", ""),
        ("fixed.vhdx", "subformat=fixed"),
        ("old.qcow2", "compat=0.10"),
        ("new.qcow2", "extended_l2=on"),
        ("sparse.vmdk", ""),
        ("split.vmdk", "subformat=twoGbMaxExtentSparse"),
        ("flat.vmdk", "subformat=monolithicFlat"),
        ("stream.vmdk", "subformat=streamOptimized"),
    ):
        convert = [require_program("qemu-img"), "convert", "-f", "raw", "-O", name.rpartition(".")[2]]
        more = ["-o", options] if options else []
        oracles.run([*convert, *more, "content.raw", name], cwd=tmp_path)
        wanted[wine.windows(tmp_path / name)] = digest
    corpus = corpus_images.expected()
    for name in ("dfvfs/ntfs-differential.vhd", "dfvfs/ntfs-differential.vhdx"):
        for behind in corpus[name].parents:
            corpus_images.image(behind)
        wanted[wine.windows(corpus_images.image(name))] = corpus[name].sha256
    program = tmp_path / "program.py"
    program.write_text(
        f"WANTED = {wanted!r}\n"
        """
import hashlib
from vsssnap import open_image
for path, digest in WANTED.items():
    with open_image(path) as image:
        assert hashlib.sha256(image.readall()).hexdigest() == digest, path
print("all read")
"""
    )
    done = lab.python(wine.windows(program))
    assert "all read" in done.stdout, done.stdout
