"""What the program says: remedies that can be followed, and numbers that mean something."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vsssnap.cli.app import app
from vsssnap.testing import MemoryProvider, MemoryVolume, installed


class Memory(MemoryProvider):
    """Found by the names of volumes."""

    name = "memory"


@pytest.fixture(autouse=True)
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryVolume]:
    monkeypatch.chdir(tmp_path)
    with installed(Memory):
        yield MemoryVolume(b"data" * 1024, name="/srv/data")


def run(*arguments: str, status: int = 0) -> Result:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == status, done.output
    return done


def test_steps_are_shown_when_asked() -> None:
    shown = run("save", "/srv/data", "a.vsnap", "-v").stderr
    assert re.findall(r"ms /srv/data: (\w+)", shown) == ["probe", "prepare", "take", "ready", "release"]
    assert run("save", "/srv/data", "b.vsnap").stderr == ""


def test_a_format_without_room_for_metadata_says_so_and_the_remedy() -> None:
    shown = run("save", "/srv/data", "a.qcow2").output
    assert "qcow2 keeps neither checksums nor metadata; --option sidecar=yes" in shown
    assert "warning" not in shown
    assert "keeps neither" not in run("save", "/srv/data", "b.qcow2", "--option", "sidecar=yes").output
    assert "keeps neither" not in run("save", "/srv/data", "c.vsnap").output


def test_the_date_stands_in_a_target_and_unknown_words_do_not(tmp_path: Path) -> None:
    run("save", "/srv/data", "{name}-{date}.vsnap")
    (made,) = tmp_path.iterdir()
    assert re.fullmatch(r"data-\d{4}-\d\d-\d\d\.vsnap", made.name)
    assert abs((datetime.fromisoformat(made.name[5:15]).replace(tzinfo=UTC) - datetime.now(UTC)).days) <= 1
    done = run("save", "/srv/data", "{volume}.vsnap", status=2)
    assert "{volume} stands for nothing: {name} and {date} are known" in done.output
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failure_before_the_command_runs_names_the_command() -> None:
    told = json.loads(run("save", "--json", status=2).stdout)
    assert (told["command"], told["error"]["exit_code"]) == ("save", 2)


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["info", "backup.py"], "pass --format raw"),
        (["verify", "backup.py"], "pass --format raw"),
        (["convert", "backup.py", "a.vsnap"], "pass --input-format raw"),
        (["compare", "backup.py", "backup.py"], "pass --format-a or --format-b raw"),
    ],
)
def test_the_remedy_names_an_option_of_this_command(tmp_path: Path, command: list[str], option: str) -> None:
    (tmp_path / "backup.py").write_text("print()")
    assert option in run(*command, status=19).output


def test_a_folder_is_told_from_a_device(tmp_path: Path) -> None:
    (tmp_path / "vol").mkdir()
    for command in ("info", "verify"):
        said = run(command, "vol", status=23).output
        assert "vol is a folder, no image: name an image's file; " in said
        assert "what is mounted there can be saved with `vsssnap save`" in said
    assert "name an image's file" in run("info", "/dev/null", status=23).output


def test_the_option_of_a_parent_is_not_the_remedy_for_a_parent_that_lacks_its_own(tmp_path: Path) -> None:
    run("save", "/srv/data", "a.vsnap")
    run("save", "/srv/data", "b.vsnap", "--parent", "a.vsnap")
    (tmp_path / "a.vsnap").rename(tmp_path / "elsewhere.vsnap")
    said = run("save", "/srv/data", "c.vsnap", "--parent", "b.vsnap", status=18).output
    assert "b.vsnap: its parent is not there" in said
    assert "put the parent beside it" in said
    assert "--parent" not in said
    assert "name it with --parent" in run("verify", "b.vsnap", status=18).output
    run("save", "/srv/data", "a.vsnap", "--format", "vsnap")  # another one
    said = run("save", "/srv/data", "c.vsnap", "--parent", "b.vsnap", status=22).output
    assert "put the parent back as it was when this image was made; it must not be written since" in said


def test_a_command_that_fails_says_what_to_do() -> None:
    done = run("save", "/srv/data", "a.vsnap", "--before", "false", status=9)
    assert "run it by hand to see why; no snapshot was taken" in done.output
    done = run("save", "/srv/data", "a.vsnap", "--after", "false", status=9)
    assert "look whether the application runs" in done.output


def test_a_file_that_is_cut_short_has_a_remedy(tmp_path: Path) -> None:
    run("save", "/srv/data", "a.vhd", "--option", "kind=dynamic")
    data = (tmp_path / "a.vhd").read_bytes()
    (tmp_path / "a.vhd").write_bytes(data[:1000])
    done = run("restore", "a.vhd", "out.raw", status=21)
    assert "--recover" in done.output
    assert "recover=True" not in done.output


def test_help_needs_no_file_of_the_source_tree() -> None:
    assert "docs/" not in run("--help").output
