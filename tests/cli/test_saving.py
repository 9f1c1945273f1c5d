"""Names, sources and options of ``save`` and ``convert``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vsssnap import Extent, ExtentKind, open_image, save_image
from vsssnap.cli.app import app
from vsssnap.cli.naming import stems
from vsssnap.errors import UsageError
from vsssnap.testing import MemoryProvider, MemoryReader, MemoryVolume, installed


class Memory(MemoryProvider):
    """Found by the names of volumes."""

    name = "memory"


@pytest.fixture(autouse=True)
def volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[MemoryVolume]]:
    monkeypatch.chdir(tmp_path)
    with installed(Memory):
        yield [MemoryVolume(b"data" * 500, name="/srv/data"), MemoryVolume(b"log" * 500, name="/srv/log")]


def run(*arguments: str, status: int = 0) -> Result:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == status, done.output
    return done


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["/srv/data"], ["data"]),
        (["/srv/data", "/home"], ["data", "home"]),
        (["/a/data", "/b/data"], ["a-data", "b-data"]),
        (["C:", "D:\\"], ["C", "D"]),
        (["\\\\?\\Volume{1}\\", "/x"], ["Volume{1}", "x"]),
        (["/"], ["root"]),
        (["./disk.raw", "../other"], ["disk.raw", "other"]),
    ],
)
def test_image_is_named_after_its_source(sources: list[str], expected: list[str]) -> None:
    assert stems(sources) == expected


@pytest.mark.parametrize("sources", [["/a/b", "/a/b"], ["/Data", "/data"], ["/", "//"]])
def test_two_sources_of_one_name_are_refused(sources: list[str]) -> None:
    with pytest.raises(UsageError, match="save them one by one"):
        stems(sources)


def test_several_sources_go_into_a_folder(tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    run("save", "/srv/data", "/srv/log", "backup")
    assert names(tmp_path / "backup") == ["data.vsnap", "log.vsnap"]
    with open_image(tmp_path / "backup" / "log.vsnap") as image:
        assert image.readall() == b"log" * 500


def test_several_sources_go_where_the_pattern_says(tmp_path: Path) -> None:
    run("save", "/srv/data", "/srv/log", "{name}-1.raw")
    assert [name for name in names(tmp_path) if name.endswith(".raw")] == ["data-1.raw", "log-1.raw"]


def test_several_sources_do_not_fit_one_name(tmp_path: Path) -> None:
    done = run("save", "/srv/data", "/srv/log", "a.vsnap", status=2)
    assert "put {name} into the target" in done.output
    assert names(tmp_path) == []


def test_existing_image_is_refused_before_a_snapshot_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.vsnap").write_bytes(b"precious")
    for option in ("--before", "--after"):
        done = run("save", "/srv/data", "a.vsnap", option, f"touch {tmp_path}/was-run", status=16)
        assert "a.vsnap exists: choose another name, or pass --replace" in done.output
    assert names(tmp_path) == ["a.vsnap"]
    run("save", "/srv/data", "a.vsnap", "--replace")
    with open_image(tmp_path / "a.vsnap") as image:
        assert image.readall() == b"data" * 500


@pytest.mark.parametrize("target", ["missing/a.vsnap", "missing/"])
def test_missing_folder_is_found_before_a_command_runs(tmp_path: Path, target: str) -> None:
    done = run("save", "/srv/data", target, "--before", "touch was-run", status=17)
    assert "the folder must exist and be writable" in done.output
    assert names(tmp_path) == []


def test_commands_run_around_the_instant(tmp_path: Path) -> None:
    done = run(
        "save", "/srv/data", "a.vsnap", "--before", "touch before", "--after", "touch 'the after'",
        "--claims-application", "--require", "application", "--json",
    )  # fmt: skip
    assert json.loads(done.stdout)["snapshot"]["consistency"] == "application"
    assert names(tmp_path) == ["a.vsnap", "before", "the after"]


def test_command_that_fails_leaves_no_image_and_runs_the_other(tmp_path: Path) -> None:
    done = run("save", "/srv/data", "a.vsnap", "--before", "false", "--after", "touch after", status=9)
    assert "false" in done.output
    assert names(tmp_path) == ["after"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--claims-application"], "--claims-application is about --before and --after"),
        (["--before", "echo 'x"], '--before "echo \'x" cannot be split into words'),
        (["--provider-option", "a=b"], "--provider-option without --provider"),
        (["--provider", "memory", "--provider-option", "a=b"], "provider 'memory' has no options"),
        (["--live", "--require", "filesystem"], "--live takes no snapshot"),
        (["--live", "--stop-service", "x"], "--live takes no snapshot"),
        (["--live", "--claims-application"], "--live does not go with --claims-application"),
        (["--live", "--uncovered", "read"], "--live does not go with --uncovered"),
        (["--provider", "zap"], "there is no snapshot provider 'zap'"),
        (["--format", "zap"], "there is no image format 'zap'"),
        (["--option", "level=high"], "it takes NUMBER"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, arguments: list[str], said: str) -> None:
    assert said in run("save", "/srv/data", "a.vsnap", *arguments, status=2).output
    assert names(tmp_path) == []


def test_what_an_image_says_of_itself_goes_along_when_it_is_converted(tmp_path: Path) -> None:
    run("save", "/srv/data", "a.vsnap")
    run("convert", "a.vsnap", "b.raw")
    one, two = (json.loads(run("info", name, "--json").stdout) for name in ("a.vsnap", "b.raw"))
    assert one["metadata"] == two["metadata"]
    assert two["metadata"]["consistency"] == "crash"
    assert two["metadata"]["provider"] == "memory"


@pytest.mark.parametrize(
    ("target", "flattened"),
    [
        ("b.vsnap", {}),
        ("b.vhdx", {"excluded": 2 << 20}),  # it can say that a block was given up
        ("b.vhd", {"excluded": 2 << 20, "hole": 3 << 20}),
        ("b.qcow2", {"excluded": 2 << 20, "hole": 3 << 20}),
        ("b.vmdk", {"excluded": 2 << 20, "hole": 3 << 20}),
    ],
)
def test_what_the_target_cannot_say_is_told_when_an_image_is_converted(
    target: str, flattened: dict[str, int]
) -> None:
    mib = 1 << 20
    kinds = [ExtentKind.DATA, ExtentKind.HOLE, ExtentKind.ZERO, ExtentKind.EXCLUDED]
    content, extents = b"", []
    for length, kind in zip((mib, 3 * mib, mib, 2 * mib), kinds, strict=True):
        extents.append(Extent(len(content), length, kind))
        content += (b"x" if kind is ExtentKind.DATA else b"\0") * length
    save_image(MemoryReader(content, extents), "a.vsnap")
    options = ["--option", "block_size=1M"] if target == "b.vhdx" else []
    done = run("convert", "a.vsnap", target, "--no-wrap", "--json", *options)
    (report,) = json.loads(done.stdout)["images"]
    assert report["flattened"] == flattened
    said = run("convert", "a.vsnap", target, "--no-wrap", "--replace", *options).output
    assert all(f"{size >> 20}.00 MiB {kind}" in said for kind, size in flattened.items())
    assert ("has plain zeros for" in said) == bool(flattened)
    with open_image(target) as image:
        assert image.readall() == content


@pytest.mark.parametrize(
    ("image", "target", "made"),
    [
        ("a.vsnap", "backup", "backup/a.raw"),
        ("a.vsnap", "{name}-2.raw", "a-2.raw"),
        ("A.VSNAP", "backup", "backup/A.raw"),
        ("image", "backup", "backup/image.raw"),
    ],
)
def test_converted_image_is_named_without_the_old_ending(
    tmp_path: Path, image: str, target: str, made: str
) -> None:
    (tmp_path / "backup").mkdir()
    run("save", "/srv/data", image, "--format", "vsnap")
    run("convert", image, target, "--format", "raw")
    assert (tmp_path / made).read_bytes() == b"data" * 500


def test_increment_of_a_damaged_parent_does_not_claim_to_have_read_it(
    tmp_path: Path, volumes: list[MemoryVolume]
) -> None:
    run("save", "/srv/data", "monday.vsnap")
    data = bytearray((tmp_path / "monday.vsnap").read_bytes())
    at = data.index(b"\x28\xb5\x2f\xfd")  # the first zstd frame: data
    data[at + 20] ^= 1
    (tmp_path / "monday.vsnap").write_bytes(data)
    done = run("save", "/srv/data", "tuesday.vsnap", "--parent", "monday.vsnap")
    assert "monday.vsnap, known by checksums alone; --verify reads it" in done.output
    done = run("save", "/srv/data", "wednesday.vsnap", "--parent", "monday.vsnap", "--verify", status=1)
    assert "alone" not in done.output
    assert "wednesday.vsnap: DAMAGED" in done.output
    assert "monday.vsnap: stored bytes of chunk 0" in done.output


def test_a_parent_that_lacks_its_own_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    run("save", "/srv/data", "monday.vsnap")
    run("save", "/srv/data", "tuesday.vsnap", "--parent", "monday.vsnap")
    (tmp_path / "monday.vsnap").unlink()
    increment = ("save", "/srv/data", "wednesday.vsnap", "--parent", "tuesday.vsnap")
    done = run(*increment, "--before", "false", status=18)  # run, it would end with 9
    assert "tuesday.vsnap: its parent is not there (looked for monday.vsnap)" in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tuesday.vsnap"]


def test_increment_names_its_parent(tmp_path: Path, volumes: list[MemoryVolume]) -> None:
    run("save", "/srv/data", "monday.vsnap")
    volumes[0].pwrite(b"tuesday", 0)
    done = run("save", "/srv/data", "tuesday.vsnap", "--parent", "monday.vsnap")
    assert re.search(r"1\.95 KiB of it read, 1\.95 KiB changed, [0-9.]+ KiB stored, ", done.output)
    with open_image(tmp_path / "tuesday.vsnap") as image:
        assert image.pread(7, 0) == b"tuesday"
    (tmp_path / "monday.vsnap").unlink()
    shown = run("verify", "tuesday.vsnap", status=18).output
    assert "its parent is not there (looked for monday.vsnap)" in shown
