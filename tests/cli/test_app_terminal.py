"""The program on a terminal: a bar, questions, and Ctrl-C as the terminal sends it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from loops import loop_device, sparse_file
from requirements import require_lab
from sources import noise

MIB = 1 << 20
WAIT = 60.0  # seconds until a test gives a stuck program up

pytestmark = pytest.mark.timeout(170)


class Terminal:
    """A program that has a terminal of its own, as its controlling one."""

    def __init__(self, *arguments: str | Path, cwd: Path) -> None:
        self.fd, other = pty.openpty()

        def own_the_terminal() -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # tty_ioctl(4): so that it sends Ctrl-C here

        environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vsssnap", *map(str, arguments)],
            stdin=other,
            stdout=other,
            stderr=other,
            cwd=cwd,
            env={**environment, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
            start_new_session=True,
            preexec_fn=own_the_terminal,
        )
        os.close(other)
        self.shown = ""

    def until(self, seen: Callable[[str], bool]) -> bool:
        """Read until something is shown; False when the program ended before."""
        deadline = time.monotonic() + WAIT
        while not seen(self.shown):
            assert time.monotonic() < deadline, self.shown[-2000:]
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    data = os.read(self.fd, 65_536)
                except OSError:  # EIO: the other side is closed
                    return seen(self.shown)
                if not data:
                    return seen(self.shown)
                self.shown += data.decode(errors="replace")
        return True

    def until_it_reads(self) -> None:
        """Wait until it waits for what is typed; a signal that comes just before is seen only afterwards."""
        deadline, call = time.monotonic() + WAIT, Path(f"/proc/{self.process.pid}/syscall")
        while call.read_text().split()[1:2] != ["0x0"]:  # the first argument of read(2)
            assert time.monotonic() < deadline, "it does not read from the terminal"
            time.sleep(0.01)

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def ended(self) -> int:
        """Wait for the end; the exit code."""
        self.until(lambda _: False)
        os.close(self.fd)
        return self.process.wait(WAIT)


def test_bar_is_drawn_and_goes_away(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(noise(MIB) * 96)
    # Slow enough that the bar comes to say how fast it is.
    terminal = Terminal("save", "disk", "disk.vsnap", "--live", "--rate-limit", "64M", cwd=tmp_path)
    assert terminal.ended() == 0
    shown = terminal.shown
    assert re.search(r"\d+%", shown)
    assert re.search(r"[\d.]+ MiB of 96\.0 MiB", shown)
    assert "MiB/s" in shown
    assert "disk -> disk.vsnap: 96.0 MiB" in shown
    assert shown.rindex("disk -> disk.vsnap") > shown.rindex("%")
    assert "\x1b[?25h" in shown, "the cursor is shown again"
    assert "torn" in shown


def test_ctrl_c_during_a_big_save_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "big.raw").write_bytes(noise(MIB) * 80)
    # Slow enough that it is not over when Ctrl-C comes, however busy the machine is.
    terminal = Terminal("save", "big.raw", "out.vsnap", "--live", "--rate-limit", "10M", cwd=tmp_path)
    assert terminal.until(lambda shown: re.search(r" [1-9]\d?%", shown) is not None)
    terminal.type("\x03")
    assert terminal.ended() == 130
    assert "vsssnap: interrupted" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert "\x1b[?25h" in terminal.shown
    assert os.listdir(tmp_path) == ["big.raw"]


def test_image_is_not_written_to_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"x" * 1000)
    terminal = Terminal("save", "disk", "-", "--live", cwd=tmp_path)
    assert terminal.ended() == 2
    assert "the standard output is a terminal: send it to a file or another program" in terminal.shown


@pytest.mark.lab
@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 130), ("\x03", 130)])
def test_device_is_overwritten_only_after_a_yes(tmp_path: Path, answer: str, status: int) -> None:
    require_lab("losetup")
    (tmp_path / "image.raw").write_bytes(noise(MIB))
    backing = sparse_file(tmp_path / "disk", MIB)
    with loop_device(backing) as device:
        terminal = Terminal("restore", "image.raw", device, cwd=tmp_path)
        assert terminal.until(lambda shown: "Overwrite it with 1.00 MiB of" in shown)
        assert f"Everything on {device} will be lost." in terminal.shown
        terminal.until_it_reads()
        terminal.type(answer)
        assert terminal.ended() == status
    assert (backing.read_bytes() == noise(MIB)) is (status == 0)
    assert any(backing.read_bytes()) is (status == 0)


@pytest.mark.lab
def test_device_is_not_overwritten_where_nobody_can_be_asked(tmp_path: Path) -> None:
    require_lab("losetup")
    (tmp_path / "image.raw").write_bytes(noise(MIB))
    backing = sparse_file(tmp_path / "disk", MIB)
    with loop_device(backing) as device:
        for more, status in (((), 2), (("--yes",), 0)):
            done = subprocess.run(
                [sys.executable, "-m", "vsssnap", "restore", "image.raw", device, *more],
                capture_output=True,
                text=True,
                check=False,
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
            )
            assert done.returncode == status, done.stderr
            if status:
                assert f"{device} is a block device and would be overwritten: pass --yes" in done.stderr
                assert not any(backing.read_bytes())
    assert backing.read_bytes() == noise(MIB)
