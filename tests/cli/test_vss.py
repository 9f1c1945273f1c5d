"""The commands about VSS, in this process, on a fake machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vsssnap import save_image
from vsssnap.cli.app import app
from vsssnap.testing import MemoryReader
from vsssnap.testing.fake_vss import FakeStorage, FakeVss

MIB = 1 << 20


@pytest.fixture
def vsssnap(capsys: pytest.CaptureFixture[str]) -> Any:  # noqa: ANN401 - a function
    def run(*arguments: str, status: int = 0) -> str:
        with pytest.raises(SystemExit) as caught:
            app.main(list(arguments))
        seen = capsys.readouterr()
        assert caught.value.code == status, seen.out + seen.err
        return seen.out + seen.err

    return run


def test_writers_are_shown(fake_vss: FakeVss, vsssnap: Any) -> None:  # noqa: ANN401 - a function
    fake_vss.add_writer("System Writer")
    assert "System Writer" in vsssnap("writers")
    failed = fake_vss.add_writer("ASR Writer", fails_at="freeze", code=0x800423F4)
    for event in ("prepare_backup", "freeze"):  # of somebody's backup before
        failed.on(event)
    shown = json.loads(vsssnap("writers", "--json", status=1))
    assert [writer["state"] for writer in shown["writers"]] == ["FAILED_AT_FREEZE", "STABLE"]


def test_shadow_storage_is_shown_and_resized(fake_vss: FakeVss, vsssnap: Any) -> None:  # noqa: ANN401 - a function
    assert "there is no shadow storage" in vsssnap("shadow-storage", "list")
    fake_vss.add_volume("C:\\", storage=FakeStorage(512 * MIB, 64 * MIB, MIB))
    assert "512" in vsssnap("shadow-storage", "list", "C:")
    vsssnap("shadow-storage", "resize", "C:", "400MiB")
    shown = json.loads(vsssnap("shadow-storage", "list", "--json"))
    assert shown["shadow_storage"][0]["maximum"] == 400 * MIB
    vsssnap("shadow-storage", "resize", "C:", "unlimited")
    assert "no limit" in vsssnap("shadow-storage", "list")
    vsssnap("shadow-storage", "resize", "C:", "1MiB", status=10)


def test_persistent_shadow_copies_are_made_listed_and_deleted(fake_vss: FakeVss, vsssnap: Any) -> None:  # noqa: ANN401 - a function
    fake_vss.add_volume("C:\\")
    identity = vsssnap("snapshots", "create", "C:").split()[0]
    assert identity in vsssnap("snapshots", "list")
    vsssnap("snapshots", "delete", identity)
    assert not fake_vss.shadows


def test_a_volume_is_overwritten_only_when_that_was_said(
    fake_vss: FakeVss,
    vsssnap: Any,  # noqa: ANN401 - a function
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


def test_where_there_is_no_windows_it_says_so(vsssnap: Any) -> None:  # noqa: ANN401 - a function
    assert "a part of Windows" in vsssnap("writers", status=3)


def test_a_drive_is_saved(fake_vss: FakeVss, vsssnap: Any, tmp_path: Path) -> None:  # noqa: ANN401 - a function
    fake_vss.add_volume("C:\\", data=b"before", free=((200, 50),))
    shown = json.loads(vsssnap("save", "C:", str(tmp_path / "c.vsnap"), "--json", "--quiet"))
    assert shown["ok"]
    assert "vss" in vsssnap("info", str(tmp_path / "c.vsnap"))
