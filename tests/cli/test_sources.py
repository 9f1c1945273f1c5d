"""What ``save`` refuses, or says, before anything is quieted or frozen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sources import noise
from vsssnap import open_image
from vsssnap.cli.app import app
from vsssnap.testing import MemoryProvider, MemoryVolume, installed

MIB = 1 << 20


class Memory(MemoryProvider):
    """Found by the names of volumes."""

    name = "memory"


@pytest.fixture(autouse=True)
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryVolume]:
    monkeypatch.chdir(tmp_path)
    with installed(Memory):
        yield MemoryVolume(b"data" * (MIB // 4), name="/srv/data")


def run(*arguments: str, status: int = 0) -> Result:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == status, done.output
    return done


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("target", "option", "said"),
    [
        ("a.vsnap", "level=99", "level is 99"),
        ("a.vsnap", "chunk_size=1", "chunk_size is 1"),
        ("a.vsnap", "digest=md5", "digest is 'md5'"),
        ("a.qcow2", "cluster_size=1000", "cluster_size is 1000"),
    ],
)
def test_wrong_options_stop_nothing(tmp_path: Path, target: str, option: str, said: str) -> None:
    done = run("save", "/srv/data", target, "--option", option, "--before", "touch was-run", status=2)
    assert said in done.output
    assert names(tmp_path) == []


def test_a_partial_image_that_is_left_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.vsnap.partial").write_bytes(b"")
    done = run("save", "/srv/data", "a.vsnap", "--before", "touch was-run", status=16)
    assert "remove it, or pass --replace" in done.output
    assert names(tmp_path) == ["a.vsnap.partial"]


def test_a_parent_that_does_not_fit_stops_nothing(tmp_path: Path) -> None:
    run("save", "/srv/data", "a.vsnap")
    quiet = ("--before", "touch was-run")
    done = run("save", "/srv/data", "b.vhd", "--parent", "a.vsnap", *quiet, status=2)
    assert "a vsnap image cannot be the parent" in done.output
    (tmp_path / "small.raw").write_bytes(bytes(4096))
    done = run(
        "save", "small.raw", "b.vsnap", "--provider", "static", "--parent", "a.vsnap", *quiet, status=2
    )
    assert "the parent has 1048576" in done.output
    assert names(tmp_path) == ["a.vsnap", "small.raw"]


def test_a_size_that_the_format_cannot_hold_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "odd.raw").write_bytes(bytes(1000))
    done = run("save", "odd.raw", "a.qcow2", "--before", "touch was-run", status=2)
    assert "1000 bytes is no multiple of 512" in done.output
    assert names(tmp_path) == ["odd.raw"]


@pytest.mark.parametrize("live", [(), ("--live",)])
def test_an_image_is_no_source_but_its_bytes_are(tmp_path: Path, live: tuple[str, ...]) -> None:
    run("save", "/srv/data", "q.vsnap")
    done = run("save", "q.vsnap", "out.raw", *live, status=2)
    assert "q.vsnap is a vsnap image" in done.output
    assert "`vsssnap convert q.vsnap TARGET`" in done.output
    assert "--input-format raw" in done.output
    assert names(tmp_path) == ["q.vsnap"]
    run("save", "q.vsnap", "out.raw", "--input-format", "raw", *live)
    assert (tmp_path / "out.raw").read_bytes() == (tmp_path / "q.vsnap").read_bytes()


def test_a_target_on_the_volume_itself_is_warned_of(tmp_path: Path) -> None:
    # A folder of the same file system stands for the volume: what is compared is the device.
    folder = tmp_path / "vol"
    folder.mkdir()
    from vsssnap.cli.output import Output
    from vsssnap.cli.sources import warn_of_places

    out = Output("save", as_json=True)
    warn_of_places(out, [("vol", "vol/in.vsnap")])
    assert ["vol/in.vsnap lies on vol, which is being imaged" in text for text in out.warnings] == [True]
    out = Output("save", as_json=True)
    warn_of_places(out, [("/proc", "in.vsnap"), (".", "-")])  # the standard output lies nowhere
    assert out.warnings == []


def test_one_volume_under_two_names_is_said(tmp_path: Path) -> None:
    (tmp_path / "one.raw").write_bytes(b"x" * 8192)
    (tmp_path / "two.raw").symlink_to("one.raw")
    done = run("save", "one.raw", "two.raw", "{name}.vsnap", "--provider", "static", "--json")
    assert json.loads(done.stdout)["warnings"] == [
        "one.raw and two.raw are the same volume, and each gets an image of it"
    ]


def test_save_verifies_when_asked(tmp_path: Path) -> None:
    done = run("save", "/srv/data", "a.vsnap", "--verify")
    assert "a.vsnap: ok (vsnap; every stored byte was compared with its checksum" in done.output
    told = json.loads(run("save", "/srv/data", "b.vsnap", "--verify", "--json").stdout)
    assert [report["depth"] for report in told["verified"]] == ["stored"]
    done = run("save", "/srv/data", "-", "--verify", status=2)
    assert "--verify cannot read the standard output" in done.output


def test_damage_found_right_after_a_save_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vsssnap.imaging import saving

    finished = saving.save_image

    def damaging(*arguments: object, **named: object) -> object:
        report = finished(*arguments, **named)  # type: ignore[arg-type]  # passed on as they are
        data = bytearray(Path(report.path).read_bytes())
        data[len(data) // 2] ^= 1
        Path(report.path).write_bytes(data)
        return report

    monkeypatch.setattr("vsssnap.save_image", damaging)
    assert "a.vsnap: DAMAGED" in run("save", "/srv/data", "a.vsnap", "--verify", status=1).output


# Salvage.


@pytest.fixture
def broken(tmp_path: Path, volume: MemoryVolume) -> bytes:
    """``half.vsnap``, of which the end is missing; what the whole image holds."""
    content = noise(4 * MIB)
    big = MemoryVolume(content, name="/srv/big")
    run("save", big.name, "whole.vsnap", "--option", "level=0")
    data = (tmp_path / "whole.vsnap").read_bytes()
    (tmp_path / "half.vsnap").write_bytes(data[: len(data) // 2])
    return content


def test_a_broken_off_image_is_restored_as_far_as_it_goes(tmp_path: Path, broken: bytes) -> None:
    done = run("restore", "half.vsnap", "out.raw", status=21)
    assert "pass --recover" in done.output
    done = run("restore", "half.vsnap", "out.raw", "--recover", status=15)
    assert "--on-read-error mark" in done.output
    assert not (tmp_path / "out.raw").exists()
    options = ("--recover", "--on-read-error", "mark")
    done = run("restore", "half.vsnap", "out.raw", *options, "--verify", "--json", status=1)
    told = json.loads(done.stdout)
    lost = told["report"]["unreadable"]
    assert lost
    rest = bytearray(broken)
    for extent in lost:
        rest[extent["offset"] : extent["offset"] + extent["length"]] = bytes(extent["length"])
    assert (tmp_path / "out.raw").read_bytes() == bytes(rest)
    assert MIB < rest.count(0) < 3 * MIB  # about a half
    assert len(told["warnings"]) == len(lost)


def test_a_broken_off_image_is_converted_compared_and_verified(tmp_path: Path, broken: bytes) -> None:
    assert broken
    options = ("--recover", "--on-read-error", "mark")
    run("convert", "half.vsnap", "rest.vsnap", *options, status=1)
    with open_image("rest.vsnap") as image:
        assert image.pread(4096, 0) == broken[:4096]
    told = json.loads(run("compare", "half.vsnap", "whole.vsnap", "--recover", "--json", status=1).stdout)
    assert told["differing"] == 0
    assert told["unreadable"] > MIB
    shown = run("verify", "half.vsnap", status=1).output
    assert "recover=True" not in shown
    assert "pass --recover" in shown
    assert "DAMAGED" in run("verify", "half.vsnap", "--recover", status=1).output


def test_a_renamed_parent_is_named(tmp_path: Path, volume: MemoryVolume) -> None:
    run("save", "/srv/data", "monday.vsnap")
    volume.pwrite(b"tuesday", MIB // 2)
    run("save", "/srv/data", "tuesday.vsnap", "--parent", "monday.vsnap")
    (tmp_path / "monday.vsnap").rename("moved")
    for command in (
        ["restore", "tuesday.vsnap", "a.raw"],
        ["verify", "tuesday.vsnap"],
        ["compare", "tuesday.vsnap", "tuesday.vsnap"],
        ["convert", "tuesday.vsnap", "b.raw"],
    ):
        assert "name it with --parent" in run(*command, status=18).output
        run(*command, "--parent", "moved")
    assert (tmp_path / "a.raw").read_bytes()[MIB // 2 :][:8] == b"tuesdaya"
    shown = run("info", "tuesday.vsnap")
    assert "its parent is not there" in shown.stderr
    assert "--parent" in shown.stderr
    assert run("info", "tuesday.vsnap", "--parent", "moved").stderr == ""


def test_a_raw_image_with_a_side_car_is_no_plain_file(tmp_path: Path, volume: MemoryVolume) -> None:
    run("save", "/srv/data", "a.raw", "--option", "sidecar=yes")
    for live in ((), ("--live",)):
        done = run("save", "a.raw", "b.vsnap", *live, status=2)
        assert "a.raw is an image with a side-car" in done.output
        assert "vsssnap convert a.raw TARGET" in done.output
    run("save", "a.raw", "b.vsnap", "--live", "--input-format", "raw")
    run("convert", "a.raw", "c.vsnap")


def test_a_parent_that_is_missing_is_named_where_one_recovers(tmp_path: Path, volume: MemoryVolume) -> None:
    run("save", "/srv/data", "monday.vsnap")
    volume.pwrite(b"tuesday", MIB // 2)
    run("save", "/srv/data", "tuesday.vsnap", "--parent", "monday.vsnap")
    (tmp_path / "monday.vsnap").unlink()
    missing = "tuesday.vsnap: its parent is not there (looked for monday.vsnap)"
    for command in ("restore", "convert"):
        assert missing in run(command, "tuesday.vsnap", f"{command}.raw", "--recover", status=15).stderr
        marked = ("--recover", "--on-read-error", "mark")
        assert missing in run(command, "tuesday.vsnap", f"{command}.raw", *marked, status=1).stderr
    run("verify", "tuesday.vsnap", status=18)
    for depth in ((), ("--depth", "content"), ("--depth", "structure")):
        shown = run("verify", "tuesday.vsnap", "--recover", *depth, status=1).stdout
        assert "DAMAGED (vsnap; 1 problem)" in shown
        assert missing in shown
