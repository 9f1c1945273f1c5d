from __future__ import annotations

from pathlib import PureWindowsPath

import pytest

from vsssnap._win32 import slots
from vsssnap._win32.constants import DriveType
from vsssnap.errors import ProviderUnavailableError
from vsssnap.providers.vss.names import resolve
from vsssnap.testing.fake_vss import FakeVolume, FakeVss


@pytest.fixture
def volume(fake_vss: FakeVss) -> FakeVolume:
    return fake_vss.add_volume("C:\\", "D:\\mounted folder\\")


@pytest.mark.parametrize(
    "name",
    [
        "C:",
        "c:",
        "C:\\",
        "C:/",
        "\\\\.\\C:",
        "\\\\?\\C:\\",
        "D:\\mounted folder",
        "D:\\mounted folder\\",
        "d:/mounted folder",
        b"C:",
        PureWindowsPath("C:\\"),
    ],
)
def test_every_spelling_is_the_one_volume(fake_vss: FakeVss, volume: FakeVolume, name: object) -> None:
    assert [found.volume for found in resolve(fake_vss, [name])] == [volume.guid_path]


def test_a_volume_that_does_not_answer_is_said_so(
    fake_vss: FakeVss, volume: FakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "ANSWER", 0.2)
    fake_vss.faults.delay("GetVolumeNameForVolumeMountPointW")
    with pytest.raises(ProviderUnavailableError, match="mounted folder does not answer") as caught:
        resolve(fake_vss, ["D:\\mounted folder"])
    assert "event log" in caught.value.hint


@pytest.mark.parametrize("end", ["", "\\"])
def test_a_guid_path_is_taken_with_and_without_a_backslash(
    fake_vss: FakeVss, volume: FakeVolume, end: str
) -> None:
    name = volume.guid_path.rstrip("\\") + end
    assert resolve(fake_vss, [name, name.upper().replace("VOLUME", "Volume")])[1].volume == volume.guid_path


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Q:", "does not exist"),
        ("C:\\Windows", "is a folder on a volume"),
        ("\\\\server\\share", "network share"),
        ("//server/share", "network share"),
        ("\\\\?\\Volume{00000000-0000-0000-0000-000000000000}\\", "does not exist"),
        ("", "no name"),
        ("C:\0", "no name"),
        (7, "no path"),
    ],
)
def test_what_is_no_volume_is_said_in_words(
    fake_vss: FakeVss, volume: FakeVolume, name: object, why: str
) -> None:
    with pytest.raises(ProviderUnavailableError, match=why) as caught:
        resolve(fake_vss, [name])
    assert caught.value.hint


@pytest.mark.parametrize(
    ("kind", "why"), [(DriveType.DRIVE_REMOTE, "network drive"), (DriveType.DRIVE_CDROM, "optical")]
)
def test_drives_of_other_kinds_are_refused(fake_vss: FakeVss, kind: DriveType, why: str) -> None:
    fake_vss.add_volume("Z:\\", drive_type=kind)
    with pytest.raises(ProviderUnavailableError, match=why):
        resolve(fake_vss, ["Z:"])
