"""A claim holds as long as its process, and no longer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vsssnap import _claims

PROGRAM = """
import sys, time
from vsssnap import _claims
_claims.create(sys.argv[1], b"mine")
print("made", flush=True)
time.sleep(100)
"""


def test_a_claim_ends_with_its_descriptor(tmp_path: Path) -> None:
    path = str(tmp_path / "claim")
    fd = _claims.create(path, b"content")
    assert _claims.read(path, 100) == (b"content", True)
    assert _claims.read(path, 3) == (b"con", True)
    os.close(fd)
    assert _claims.read(path, 100) == (b"content", False)


def test_a_claim_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    path = str(tmp_path / "claim")
    command = [sys.executable, "-c", PROGRAM, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n"
        assert _claims.read(path, 100) == (b"mine", True)
        process.kill()
    assert _claims.read(path, 100) == (b"mine", False)


def test_a_file_that_is_there_is_not_claimed(tmp_path: Path) -> None:
    (tmp_path / "claim").write_bytes(b"other")
    with pytest.raises(FileExistsError):
        _claims.create(str(tmp_path / "claim"), b"mine")
    assert (tmp_path / "claim").read_bytes() == b"other"


def test_looking_at_a_new_file_does_not_take_its_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "claim", _claims._lock
    looked = threading.Event()

    def slow(fd: int) -> bool:  # a reader gets there first, and holds the lock for a moment
        if not looked.is_set():
            looked.set()
            other = os.open(path, os.O_RDWR)
            assert real(other)
            threading.Timer(0.05, os.close, [other]).start()
        return real(fd)

    monkeypatch.setattr(_claims, "_lock", slow)
    monkeypatch.setattr(_claims, "_TRIES", 6000)
    fd = _claims.create(str(path), b"mine")
    monkeypatch.setattr(_claims, "_lock", real)
    assert _claims.read(str(path), 10) == (b"mine", True)
    os.close(fd)


def test_a_file_that_cannot_be_claimed_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_claims, "_lock", lambda fd: False)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(OSError, match="lock"):
        _claims.create(str(tmp_path / "claim"), b"mine")
    assert list(tmp_path.iterdir()) == []
