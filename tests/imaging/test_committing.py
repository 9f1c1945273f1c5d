"""Image and side-car get their names together; what a replace would have replaced survives its failure."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sources import BytesReader
from vsssnap.errors import TargetError
from vsssnap.formats.raw import RawOptions
from vsssnap.imaging.opening import create_image
from vsssnap.imaging.restoring import restore_image
from vsssnap.imaging.saving import save_image
from vsssnap.imaging.verifying import verify_image

OLD, NEW = b"old" * 30000, b"new" * 30000
FULL = OSError(errno.EIO, os.strerror(errno.EIO))


def saved(path: Path) -> None:
    save_image(BytesReader(OLD), path, options=RawOptions(sidecar=True))


def replace_by_save(path: Path) -> None:
    save_image(BytesReader(NEW), path, options=RawOptions(sidecar=True), replace=True)


def replace_by_plain_save(path: Path) -> None:
    save_image(BytesReader(NEW), path, options=RawOptions(sidecar=False), replace=True)


def replace_by_restore(path: Path) -> None:
    restore_image(BytesReader(NEW), path, replace=True)


WAYS = pytest.mark.parametrize(
    "replace", [replace_by_save, replace_by_plain_save, replace_by_restore], ids=lambda way: way.__name__
)


def fail_at(
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    when: Callable[[str, str], bool],
    error: BaseException,
    *,
    after: bool,
) -> None:
    """Let a call of `os` on two names raise, before or after it has done its work."""
    real = getattr(os, call)

    def wrong(old: str, new: str, **more: object) -> None:
        hit = when(os.path.basename(old), os.path.basename(new))
        if not hit or after:
            real(old, new, **more)
        if hit:
            raise error

    monkeypatch.setattr(os, call, wrong)


def to(name: str) -> Callable[[str, str], bool]:
    return lambda old, new: new == name and old.endswith(".partial")


def away(old: str, new: str) -> bool:
    return old == "a.raw.vsssnap"


@WAYS
def test_a_replace_that_fails_in_its_last_step_keeps_the_old_image_with_its_side_car(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, replace: Callable[[Path], None]
) -> None:
    path = tmp_path / "a.raw"
    saved(path)
    beside = (tmp_path / "a.raw.vsssnap").read_bytes()
    fail_at(monkeypatch, "replace", to("a.raw"), FULL, after=False)
    with pytest.raises(TargetError, match=r"a\.raw cannot be given its name"):
        replace(path)
    assert sorted(os.listdir(tmp_path)) == ["a.raw", "a.raw.vsssnap"]
    assert (tmp_path / "a.raw.vsssnap").read_bytes() == beside
    assert path.read_bytes() == OLD
    assert verify_image(path).sidecar


@WAYS
@pytest.mark.parametrize("after", [False, True])
def test_ctrl_c_while_the_side_car_is_set_aside_keeps_the_old_pair(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, replace: Callable[[Path], None], after: bool
) -> None:
    path = tmp_path / "a.raw"
    saved(path)
    fail_at(monkeypatch, "replace", away, KeyboardInterrupt(), after=after)
    with pytest.raises(KeyboardInterrupt):
        replace(path)
    assert sorted(os.listdir(tmp_path)) == ["a.raw", "a.raw.vsssnap"]
    assert path.read_bytes() == OLD
    report = verify_image(path)
    assert report.ok
    assert report.sidecar


@WAYS
def test_ctrl_c_once_the_new_image_has_its_name_leaves_no_side_car_of_the_old_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, replace: Callable[[Path], None]
) -> None:
    path = tmp_path / "a.raw"
    saved(path)
    fail_at(monkeypatch, "replace", to("a.raw"), KeyboardInterrupt(), after=True)
    with pytest.raises(KeyboardInterrupt):
        replace(path)
    assert os.listdir(tmp_path) == ["a.raw"], "a new image beside old checksums would look damaged"
    assert path.read_bytes() == NEW
    assert verify_image(path).ok


@WAYS
def test_a_side_car_that_a_killed_replace_set_aside_is_not_taken_for_that_of_another_image(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, replace: Callable[[Path], None]
) -> None:
    path, beside, aside = (tmp_path / f"a.raw{end}" for end in ("", ".vsssnap", ".vsssnap.replaced"))
    saved(path)
    stale = beside.read_bytes()
    beside.unlink()
    aside.write_bytes(stale)
    path.write_bytes(NEW)  # the killed one came as far as this
    with monkeypatch.context() as patch:
        fail_at(patch, "replace", to("a.raw"), FULL, after=False)
        with pytest.raises(TargetError):
            replace(path)
    assert not beside.exists()
    replace(path)
    assert not aside.exists()
    assert verify_image(path).ok


def test_an_image_whose_side_car_cannot_be_set_aside_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "a.raw"
    saved(path)
    fail_at(monkeypatch, "replace", away, FULL, after=False)
    with pytest.raises(TargetError, match=r"a\.raw\.vsssnap cannot be moved aside"):
        replace_by_save(path)
    assert sorted(os.listdir(tmp_path)) == ["a.raw", "a.raw.vsssnap"]
    assert path.read_bytes() == OLD


@pytest.mark.posix("a new name is made by renaming there")
@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["error", "ctrl-c"])
@pytest.mark.parametrize("call", ["link", "unlink"])
def test_a_new_image_that_fails_in_its_last_step_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str, error: BaseException
) -> None:
    """The name is made by link(2) and the old one removed; between the two the image is under both."""
    writer = create_image(tmp_path / "a.raw", len(NEW), options=RawOptions(sidecar=True))
    writer.pwrite(memoryview(NEW), 0)
    real = getattr(os, call)
    seen: list[str] = []

    def wrong(path: str, *names: str, **more: object) -> None:
        real(path, *names, **more)
        if path.endswith("a.raw.partial") and not seen:
            seen.append(path)
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, call, wrong)
        with pytest.raises(type(error) if isinstance(error, KeyboardInterrupt) else TargetError):
            writer.finish()
    assert seen
    assert os.listdir(tmp_path) == []
