"""A limit on the bytes that are read: by the clock of the limit itself, never by how long a copy took."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sources import BytesReader, noise
from vsssnap._units import MIB
from vsssnap.errors import UsageError
from vsssnap.imaging.reports import CopyOptions, RateLimit
from vsssnap.imaging.saving import save_image
from waiting import until


def test_waits_add_up_to_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    waits: list[float] = []
    monkeypatch.setattr(time, "monotonic", lambda: now)
    limit = RateLimit(1000)
    monkeypatch.setattr(limit.halted, "wait", waits.append)
    for count in (500, 500, 2000, 1):
        limit.wait(count)
    assert waits == [0.5, 1.0, 3.0]


def test_time_that_was_not_used_is_not_saved_up(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 50.0, 50.0])
    waits: list[float] = []
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    limit = RateLimit(1000)
    monkeypatch.setattr(limit.halted, "wait", waits.append)
    limit.wait(1000)
    limit.wait(1)
    assert waits == [1.0]


def test_a_limited_copy_holds_the_source(tmp_path: Path) -> None:
    data = noise(2 * MIB + 5)
    save_image(BytesReader(data), tmp_path / "a.raw", copy=CopyOptions(workers=2, rate_limit=64 * MIB))
    assert (tmp_path / "a.raw").read_bytes() == data


def test_an_error_ends_a_copy_that_waits(tmp_path: Path) -> None:
    source, before = BytesReader(noise(4 * MIB), bad=[(0, 512)]), threading.active_count()
    # At this rate the second worker would wait for days.
    with pytest.raises(OSError, match="0"):
        save_image(source, tmp_path / "a.raw", copy=CopyOptions(workers=2, rate_limit=1))
    assert until(lambda: threading.active_count() <= before)


@pytest.mark.parametrize("rate", [0, -1])
def test_a_rate_below_one_byte_is_refused(rate: int) -> None:
    with pytest.raises(UsageError, match="rate_limit"):
        CopyOptions(rate_limit=rate)


@pytest.mark.posix("signals")
def test_interrupting_a_copy_that_waits_leaves_nothing(tmp_path: Path) -> None:
    program = f"""
import sys
from vsssnap import CopyOptions, save_image
class Source:
    size = 64 << 20
    def pread(self, length, offset):
        print("reading", flush=True)
        return b"x" * length
try:
    save_image(Source(), {str(tmp_path / "a.raw")!r}, copy=CopyOptions(rate_limit=1))
except KeyboardInterrupt:
    sys.exit(42)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 42
    assert list(tmp_path.iterdir()) == []
