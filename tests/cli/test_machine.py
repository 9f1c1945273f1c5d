"""Commands about the machine: what can snapshot what, and the snapshots that outlive a process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vsssnap import Consistency, Snapshot
from vsssnap.cli.app import app
from vsssnap.formats import available
from vsssnap.testing import MemoryProvider, MemoryVolume, installed


class Kept(MemoryProvider):
    """Keeps snapshots of volumes in memory."""

    name = "kept"
    level = Consistency.FILESYSTEM


@pytest.fixture(autouse=True)
def volume() -> Iterator[MemoryVolume]:
    Kept.machine.clear()
    with installed(Kept):
        yield MemoryVolume(b"before" * 1000, name="vol")
    Kept.machine.clear()


def run(*arguments: str | Path, status: int = 0) -> Result:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == status, done.output
    return done


def document(*arguments: str | Path, status: int = 0) -> dict[str, object]:
    found: dict[str, object] = json.loads(run(*arguments, "--json", status=status).stdout)
    return found


# Providers and formats.


def test_providers_are_listed_in_order_of_preference() -> None:
    listed = document("providers")["providers"]
    assert isinstance(listed, list)
    assert [entry["name"] for entry in listed][:2] == ["kept", "cow"]
    assert all(entry["usable"] or entry["reason"] for entry in listed)
    assert run("providers").stdout.splitlines()[0].split() == ["kept", "usable"]


def test_offers_for_a_volume_mark_the_one_that_is_taken(tmp_path: Path) -> None:
    shown = run("providers", "vol").stdout
    assert shown.startswith("* kept  ")
    assert "filesystem" in shown.splitlines()[0]
    assert shown.rstrip().endswith("* is what `vsssnap save` takes by default")
    assert document("providers", "vol")["chosen"] == "kept"
    (tmp_path / "disk").write_bytes(b"x" * 1000)
    assert document("providers", tmp_path / "disk")["chosen"] in ("reflink", "static")


@pytest.mark.posix("there VSS is not for another system")
def test_providers_for_other_kinds_of_volumes_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"x" * 1000)
    names = {line[2:].split()[0] for line in run("providers", tmp_path / "disk").stdout.splitlines()[:-1]}
    assert "static" in names
    assert not names & {"vss", "cow"}
    listed = document("providers", tmp_path / "disk")["providers"]
    assert isinstance(listed, list)
    assert {entry["name"] for entry in listed if entry["unrelated"]} >= {"vss", "cow"}


def test_volume_that_nobody_can_snapshot_is_exit_code_3(tmp_path: Path) -> None:
    done = run("providers", tmp_path / "nothing", status=3)
    assert "no provider can snapshot this" in done.stdout
    found = document("providers", tmp_path / "nothing", status=3)
    assert (found["ok"], found["chosen"]) == (False, None)


def test_formats_are_listed_with_what_they_hold() -> None:
    shown = run("formats").stdout
    assert "raw: .raw .dd\n  holds     holes, streaming" in shown
    assert "--option  preallocate=yes|no (default no)" in shown
    listed = document("formats")["formats"]
    assert isinstance(listed, list)
    assert {entry["name"] for entry in listed} == set(available())


# Snapshots.


def create() -> str:
    return run("snapshots", "create", "vol").stdout.strip()


def test_snapshot_that_was_created_is_listed_and_read_and_deleted(volume: MemoryVolume) -> None:
    identity = create()
    volume.pwrite(b"after!", 0)
    listed = document("snapshots", "list")["snapshots"]
    assert isinstance(listed, list)
    assert [(entry["snapshot_id"], entry["provider"], entry["volumes"]) for entry in listed] == [
        (identity, "kept", ["vol"])
    ]
    assert identity in run("snapshots", "list").stdout
    with Snapshot.attach(identity) as snapshot:
        assert snapshot.open().pread(6, 0) == b"before"
    assert run("snapshots", "delete", identity).stdout == f"{identity} is removed\n"
    assert run("snapshots", "list").stdout == "there are no snapshots\n"


def test_created_snapshot_as_json() -> None:
    made = document("snapshots", "create", "vol", "--require", "filesystem")["snapshot"]
    assert isinstance(made, dict)
    assert (made["provider"], made["consistency"]) == ("kept", "filesystem")
    assert made["id"] in Kept.machine


def test_what_was_left_behind_is_purged() -> None:
    identity = create()
    assert "left behind" in run("snapshots", "list").stdout
    shown = run("snapshots", "purge").stdout
    assert identity in shown
    assert shown.endswith("1 removed\n")
    assert document("snapshots", "purge")["removed"] == []


def test_snapshot_that_cannot_last_is_refused_by_every_provider(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"x" * 1000)
    error = document("snapshots", "create", tmp_path / "disk", status=3)["error"]
    assert isinstance(error, dict)
    assert error["class"] == "ProviderUnavailableError"
    assert "persistent" in error["reasons"]["cow"] or "no CowVolume" in error["reasons"]["cow"]
    assert "outlive" in error["reasons"]["static"]


def test_snapshot_that_does_not_exist_is_exit_code_14() -> None:
    done = run("snapshots", "delete", "nothing", status=14)
    assert "there is no snapshot 'nothing': `vsssnap snapshots list` shows those there are" in done.output


def test_consistency_that_cannot_be_had_is_exit_code_4() -> None:
    error = document("snapshots", "create", "vol", "--require", "application", status=4)["error"]
    assert isinstance(error, dict)
    assert (error["wanted"], error["offered"]) == ("APPLICATION", "FILESYSTEM")
    assert "--require" in error["hint"]
