"""``vsssnap doctor`` on this machine, and on ones that lack something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner, Result

from loops import file_system, mounted
from requirements import require_lab
from vsssnap import __version__
from vsssnap.cli import doctor as module
from vsssnap.cli import system
from vsssnap.cli.app import app
from vsssnap.testing import MemoryProvider, installed

MIB = 1 << 20


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments])


def found(*arguments: str) -> dict[tuple[str, str], dict[str, object]]:
    """The checks by group and name."""
    document = json.loads(run("--json", *arguments).stdout)
    return {(check["group"], check["name"]): check for check in document["checks"]}


def test_every_check_has_a_word_and_every_failure_a_remedy() -> None:
    for (group, name), check in found().items():
        assert check["detail"], (group, name)
        assert check["ok"] or check["remedy"], (group, name)
        assert not (check["ok"] and check["remedy"]), (group, name)


def test_what_is_there_is_named_with_its_version() -> None:
    checks = found()
    said = str(checks["program", "vsssnap"]["detail"])
    assert said.startswith(f"{__version__}, Python {sys.version_info.major}.")
    assert checks["packages", "zstandard"]["ok"]
    assert checks["formats", "raw"]["ok"]
    assert checks["providers", "cow"]["ok"]


def test_people_see_the_groups_and_what_to_do(tmp_path: Path) -> None:
    shown = run(str(tmp_path)).stdout
    for heading in ("program", "packages", "providers", "formats", f"folder {tmp_path}"):
        assert f"\n{heading}\n" in f"\n{shown}"
    assert "  yes  cow " in shown


def test_missing_package_is_exit_code_1_and_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CORE", ("cffi", "no-such-package-here"))
    checked = run()
    assert checked.exit_code == 1
    assert "NO   no-such-package-here  not installed" in checked.stdout
    assert "-> pip install no-such-package-here" in checked.stdout
    assert json.loads(run("--json").stdout)["ok"] is False


def test_machine_without_any_provider_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsssnap.providers.available", lambda: {"lvm": "lvm2 is not installed"})
    checked = run()
    assert checked.exit_code == 1
    assert "NO   lvm                   lvm2 is not installed" in checked.stdout


def test_one_usable_provider_is_enough() -> None:
    class Lacking(MemoryProvider):
        name = "lacking"

        def unusable(self) -> str:
            return "the moon is not full"

    with installed(Lacking):
        checked = run()
        assert checked.exit_code == 0
        assert "the moon is not full" in checked.stdout


def test_folder_that_is_not_there_is_said_so() -> None:
    check = found("/no/such/folder")["folder /no/such/folder", "file system"]
    assert (check["ok"], check["remedy"]) == (False, "name something that exists")
    assert "No such file" in str(check["detail"])


def test_folder_without_unnamed_files_is_said_so() -> None:
    check = found("/proc")["folder /proc", "O_TMPFILE"]
    assert check["ok"] is False
    assert check["remedy"] in ("name a folder on ext4, XFS, btrfs or tmpfs", "name one you may write")


def test_looking_leaves_nothing(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    assert run(str(tmp_path)).exit_code == 0
    assert list(tmp_path.iterdir()) == []
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("arguments", [(), ("elsewhere",)])
def test_current_folder_that_was_removed_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    checked = run(*arguments)
    assert checked.exit_code == 0, checked.output
    assert "NO " in checked.stdout[checked.stdout.index("\nfolder ") :]
    assert "No such file or directory" in checked.stdout
    assert (
        "-> name something that exists" in checked.stdout or "-> name a folder that exists" in checked.stdout
    )


@pytest.mark.lab
def test_full_folder_is_a_finding(tmp_path: Path) -> None:
    require_lab("mount", file_systems=("tmpfs",))
    with mounted("tmpfs", tmp_path / "small", options="size=64k", kind="tmpfs") as point:
        (point / "all").write_bytes(bytes(64 << 10))
        check = found(str(point))[f"folder {point}", "room"]
    assert check["ok"] is False
    assert check["detail"] == "writing into files: No space left on device"
    assert check["remedy"] == "make room, or name another folder"


@pytest.mark.lab
def test_user_without_rights_is_told_which_are_missing() -> None:
    require_lab("setpriv")
    program = "import sys; from vsssnap.cli import main; sys.argv[1:] = ['doctor', '/proc']; main()"
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "NO   CAP_SYS_ADMIN" in done.stdout, done.stderr
    assert "-> run as root, or give the program this capability" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.lab
@pytest.mark.parametrize(("kind", "clones"), [("xfs", True), ("ext4", False)])
def test_file_systems_that_clone_are_told_from_others(kind: str, clones: bool, tmp_path: Path) -> None:
    require_lab(f"mkfs.{kind}", file_systems=(kind,))
    with file_system(kind, tmp_path, 320 * MIB) as (point, device):
        checks = found(str(point))
        group = f"folder {point}"
        assert checks[group, "file system"]["detail"] == f"{kind} on {device}, at {point}"
        assert checks[group, "FICLONE"]["ok"] is clones
        for name in ("O_TMPFILE", "sparse files", "leases", "O_DIRECT"):
            assert checks[group, name]["ok"], name


# What doctor and demo ask.


def test_program_is_found_outside_of_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "frobnicate"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    assert system.find_program("frobnicate") is None
    monkeypatch.setattr(system, "_SBIN", (str(tmp_path),))
    assert system.find_program("frobnicate") == str(program)


def test_file_system_that_the_kernel_has_is_known() -> None:
    listed = Path("/proc/filesystems").read_text().split()
    assert "proc" in listed
    assert system.file_system_known("proc")
    assert not system.file_system_known("nosuchfs")
    assert not system.file_system_known("nodev"), "a word of the list that is no name"


@pytest.fixture
def status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A stand-in for /proc/self/status."""
    path = tmp_path / "status"

    class Elsewhere(type(Path())):  # type: ignore[misc]  # the class of this machine's paths
        known: ClassVar[dict[str, Path]] = {"/proc/self/status": path}

        def read_text(self, *arguments: object, **options: object) -> str:
            return self.known.get(str(self), Path(self)).read_text()

    monkeypatch.setattr(system, "Path", Elsewhere)
    return path


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("Name:\tx\nCapEff:\t0000000000200000\n", True),
        ("CapEff:\t0000000000000000\n", False),
        ("CapEff:\tffffffffffdfffff\n", False),
        ("CapInh:\t0000000000200000\n", False),
        ("CapEff:\tgarbage\n", False),
    ],
)
def test_capability_is_a_bit_of_the_effective_set(status: Path, text: str, has: bool) -> None:
    status.write_text(text)
    assert system.may_administer() is has  # CAP_SYS_ADMIN is 21, capabilities(7)


def test_capability_without_proc_is_none(status: Path) -> None:
    assert not system.may_administer()
