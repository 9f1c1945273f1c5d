"""The commands about VSS, in this process, on a fake machine."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from vsssnap import save_image
from vsssnap._win32 import operations
from vsssnap._win32.management import ShadowStorageManager
from vsssnap.cli.app import app
from vsssnap.providers.vss import existing
from vsssnap.testing import MemoryReader
from vsssnap.testing.fake_vss import FakeStorage, FakeVss

MIB = 1 << 20
Vsssnap = Callable[..., str]


@pytest.fixture
def vsssnap(capsys: pytest.CaptureFixture[str]) -> Vsssnap:
    def run(*arguments: str, status: int = 0) -> str:
        with pytest.raises(SystemExit) as caught:
            app.main(list(arguments))
        seen = capsys.readouterr()
        assert caught.value.code == status, seen.out + seen.err
        return seen.out + seen.err

    return run


def test_writers_are_shown(fake_vss: FakeVss, vsssnap: Vsssnap) -> None:
    fake_vss.add_writer("System Writer")
    assert "System Writer" in vsssnap("writers")
    failed = fake_vss.add_writer("ASR Writer", fails_at="freeze", code=0x800423F4)
    for event in ("prepare_backup", "freeze"):  # of somebody's backup before
        failed.on(event)
    shown = json.loads(vsssnap("writers", "--json", status=1))
    assert [writer["state"] for writer in shown["writers"]] == ["FAILED_AT_FREEZE", "STABLE"]


def test_shadow_storage_is_shown_and_resized(fake_vss: FakeVss, vsssnap: Vsssnap) -> None:
    assert "there is no shadow storage" in vsssnap("shadow-storage", "list")
    fake_vss.add_volume("C:\\", storage=FakeStorage(512 * MIB, 64 * MIB, MIB))
    assert "512" in vsssnap("shadow-storage", "list", "C:")
    vsssnap("shadow-storage", "resize", "C:", "400MiB")
    shown = json.loads(vsssnap("shadow-storage", "list", "--json"))
    assert shown["shadow_storage"][0]["maximum"] == 400 * MIB
    vsssnap("shadow-storage", "resize", "C:", "unlimited")
    assert "no limit" in vsssnap("shadow-storage", "list")
    vsssnap("shadow-storage", "resize", "C:", "1MiB", status=10)


def test_persistent_shadow_copies_are_made_listed_and_deleted(fake_vss: FakeVss, vsssnap: Vsssnap) -> None:
    fake_vss.add_volume("C:\\")
    identity = vsssnap("snapshots", "create", "C:").split()[0]
    assert identity in vsssnap("snapshots", "list")
    vsssnap("snapshots", "delete", identity)
    assert not fake_vss.shadows


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ("snapshots create", 2, "Missing argument"),
        ("snapshots create Q:", 3, "Q: does not exist"),
        ("snapshots create C: --provider other", 2, "no snapshot provider 'other'"),
        ("snapshots create C: --timeout 0", 2, "not in the range"),
        ("snapshots create C: --timeout nan", 2, "not positive"),
        ("snapshots delete bogus", 14, "no snapshot 'bogus'"),
        ("snapshots delete bogus --provider vss", 3, "no id of a shadow copy set"),
        (f"snapshots delete {UUID(int=7)}", 14, "no snapshot"),
        (f"snapshots delete {UUID(int=7)} --provider vss", 3, "VSS knows no shadow copy of this set"),
        ("snapshots purge more", 2, "unexpected"),
        ("writers --timeout -1", 2, "not in the range"),
        ("shadow-storage list Q:", 3, "Q: does not exist"),
        ("shadow-storage resize C:", 2, "Missing argument"),
        ("shadow-storage resize C: much", 2, "'much' is no size"),
        ("shadow-storage resize C: 0", 2, "maximum is 0"),
        ("shadow-storage resize C: 1GiB --storage Q:", 3, "Q: does not exist"),
    ],
)
def test_wrong_input_is_named_with_its_exit_code(
    fake_vss: FakeVss, vsssnap: Vsssnap, arguments: str, status: int, said: str
) -> None:
    fake_vss.add_volume("C:\\")
    assert said in vsssnap(*arguments.split(), status=status)
    if said not in ("Missing argument", "not in the range", "unexpected"):  # before there is a command
        shown = json.loads(vsssnap(*arguments.split(), "--json", status=status))
        assert (shown["ok"], shown["error"]["exit_code"]) == (False, status)
        assert said in str(shown)
    assert not fake_vss.shadows


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("snapshots create C:", 5),
        ("snapshots list", 0),
        ("snapshots purge", 0),
        (f"snapshots delete {UUID(int=7)}", 5),
        ("writers", 5),
        ("shadow-storage list", 5),
        ("shadow-storage resize C: unlimited", 5),
    ],
)
def test_who_is_not_elevated_is_told_so(
    fake_vss: FakeVss, vsssnap: Vsssnap, arguments: str, status: int
) -> None:
    fake_vss.add_volume("C:\\")
    fake_vss.elevated = False
    shown = vsssnap(*arguments.split(), status=status)
    assert "elevated" in shown
    assert "there are no snapshots" not in shown


STOPPED = {
    "writers": (operations, "_look"),
    "snapshots create C:": (operations, "_look"),
    "snapshots list": (existing, "all_copies"),
    "snapshots purge": (existing, "all_copies"),
    f"snapshots delete {UUID(int=7)}": (existing, "all_copies"),
    f"snapshots delete {UUID(int=7)} --provider vss": (existing, "administer"),
    "shadow-storage list C:": (ShadowStorageManager, "areas"),
    "shadow-storage resize C: 1GiB": (ShadowStorageManager, "resize"),
}


@pytest.mark.posix("signals are those of POSIX")
@pytest.mark.parametrize("arguments", STOPPED)
def test_ctrl_c_ends_every_command_and_leaves_nothing(
    fake_vss: FakeVss, vsssnap: Vsssnap, arguments: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_vss.add_volume("C:\\")
    fake_vss.add_writer("System Writer")
    where, name = STOPPED[arguments]
    original = getattr(where, name)
    sent: list[bool] = []

    def stopped(*given: Any) -> Any:  # noqa: ANN401 - of any function
        if not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)  # VSS is at work, and the program waits for it
        return original(*given)

    monkeypatch.setattr(where, name, stopped)
    shown = vsssnap(*arguments.split(), "--json", status=130)
    (document,) = (line for line in shown.splitlines() if line.startswith("{"))
    assert json.loads(document)["error"]["exit_code"] == 130
    assert sent
    assert not fake_vss.shadows
    assert not list(Path(fake_vss.home).rglob("*.taking"))


def test_a_volume_is_overwritten_only_when_that_was_said(
    fake_vss: FakeVss,
    vsssnap: Vsssnap,
    tmp_path: Path,
) -> None:
    volume = fake_vss.add_volume("E:\\", size=4 * MIB, data=b"precious")
    save_image(MemoryReader(b"new" * MIB), tmp_path / "image.vsnap")
    image = str(tmp_path / "image.vsnap")
    for target in ("E:", r"\\.\E:", volume.guid_path):
        assert "would be overwritten" in vsssnap("restore", image, target, status=2)
    assert volume.data[:8] == b"precious"
    vsssnap("restore", image, "E:", "--yes")
    assert bytes(volume.data) == b"new" * MIB + bytes(MIB)
    assert "4.00 MiB" in vsssnap("info", "E:")


def test_where_there_is_no_windows_it_says_so(vsssnap: Vsssnap) -> None:
    assert "a part of Windows" in vsssnap("writers", status=3)


def test_a_drive_is_saved(fake_vss: FakeVss, vsssnap: Vsssnap, tmp_path: Path) -> None:
    fake_vss.add_volume("C:\\", data=b"before", free=((200, 50),))
    shown = json.loads(vsssnap("save", "C:", str(tmp_path / "c.vsnap"), "--json", "--quiet"))
    assert shown["ok"]
    assert "vss" in vsssnap("info", str(tmp_path / "c.vsnap"))
