"""The library under a real Windows Python, with Wine in place of Windows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import portable
import wine

pytestmark = pytest.mark.lab

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
    done = lab.pytest(*part, "-m", "not lab and not long", timeout=280, scratch=tmp_path)
    assert done.returncode == 0, done.stdout[-5000:]
    # A run that somebody else ended may leave the code of success behind.
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE), done.stdout[-5000:]


@pytest.mark.long
@pytest.mark.timeout(1600)
def test_all_that_is_portable_passes_under_a_windows_python(lab: wine.Wine, tmp_path: Path) -> None:
    program, base = wine.windows(Path(portable.__file__)), wine.windows(tmp_path / "base")
    done = lab.python("-W", "error", program, "--basetemp", base, timeout=1500, cwd=portable.TOP)
    assert done.returncode == 0, done.stdout[-5000:]
    passed = re.search(r"^(\d+) passed", done.stdout, re.MULTILINE)
    assert passed is not None, done.stdout[-5000:]
    assert int(passed[1]) > 1000, done.stdout[-5000:]


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
    assert {"raw is whole", "vhdx is whole", "vsnap is whole"} <= set(done.stdout.splitlines())
