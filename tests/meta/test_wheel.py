"""What a user installs: the wheel, built by way of the source distribution."""

from __future__ import annotations

import email
import email.message
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from checkout import TOP, public_files


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the one sdist and the one wheel, the wheel built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(TOP)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.Path:
    (path,) = built.glob("*.whl")
    return zipfile.Path(path)


def information(wheel: zipfile.Path, name: str) -> str:
    (folder,) = [entry for entry in wheel.iterdir() if entry.name.endswith(".dist-info")]
    return (folder / name).read_text(encoding="utf-8")


def metadata(wheel: zipfile.Path) -> email.message.Message:
    return email.message_from_string(information(wheel, "METADATA"))


def test_wheel_holds_the_package_and_nothing_else(wheel: zipfile.Path) -> None:
    inside = {name for name in wheel.root.namelist() if ".dist-info/" not in name and not name.endswith("/")}
    tracked = {path.relative_to("src").as_posix() for path in public_files() if path.parts[0] == "src"}
    assert inside == tracked


def test_wheel_says_that_it_is_typed(wheel: zipfile.Path) -> None:
    assert (wheel / "vsssnap" / "py.typed").exists()


def test_wheel_runs_everywhere(built: Path) -> None:
    assert [path.name.endswith("-py3-none-any.whl") for path in built.glob("*.whl")] == [True]


def test_wheel_installs_the_command(wheel: zipfile.Path) -> None:
    assert "vsssnap = vsssnap.cli:main" in information(wheel, "entry_points.txt")


def test_wheel_carries_its_licence(wheel: zipfile.Path) -> None:
    assert information(wheel, "licenses/LICENSE") == (TOP / "LICENSE").read_text(encoding="utf-8")


def test_core_needs_four_packages(wheel: zipfile.Path) -> None:
    needed = metadata(wheel).get_all("Requires-Dist") or []
    core = {line.split(">")[0].strip() for line in needed if "extra ==" not in line}
    assert core == {"cffi", "zstandard", "xxhash", "blake3"}


def test_extras_are_those_documented(wheel: zipfile.Path) -> None:
    assert set(metadata(wheel).get_all("Provides-Extra") or []) == {"bench", "cli", "test", "dev"}


def test_source_distribution_can_be_tested(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "pyproject.toml",
        "tests/conftest.py",
        "tests/meta/public_api.txt",
        "docs/contributing.md",
    } <= names
