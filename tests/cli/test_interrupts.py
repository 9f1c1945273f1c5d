"""Signals end the program in order: noted where that is needed, raised where it is not."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sources import Plain, noise
from vsssnap import cli, save_image
from vsssnap.cli import interrupts
from vsssnap.cli.interrupts import Interrupted, check, deferred, installed, pending
from waiting import until

WAIT = 60.0  # seconds until a test gives a stuck thread up


def ctrl_c(number: int = signal.SIGINT) -> None:
    signal.raise_signal(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_is_raised_where_the_program_stands(number: int) -> None:
    with installed(), pytest.raises(Interrupted) as caught:
        ctrl_c(number)
    assert caught.value.number == number
    assert isinstance(caught.value, KeyboardInterrupt)


def test_handlers_are_as_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with installed():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_signal_that_is_ignored_stays_so() -> None:
    """As under nohup, or in the background of a shell."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with installed():
            ctrl_c(signal.SIGHUP)
            assert pending() == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_deferred_signal_waits_for_the_next_check() -> None:
    with installed():
        check()
        with deferred():
            ctrl_c()
            assert pending() == signal.SIGINT
            with pytest.raises(Interrupted):
                check()
            check()  # raised once


def test_deferred_signal_cancels_what_is_waited_for() -> None:
    cancelled = threading.Event()
    with installed(), deferred(cancelled.set):
        assert not cancelled.is_set()
        ctrl_c(signal.SIGTERM)
        assert cancelled.wait(WAIT)
        assert pending() == signal.SIGTERM
        with pytest.raises(Interrupted):
            check()


def test_block_that_ends_without_a_signal_cancels_nothing() -> None:
    threads, cancelled = threading.active_count(), threading.Event()
    with installed(), deferred(cancelled.set):
        pass
    assert not cancelled.is_set()
    assert until(lambda: threading.active_count() <= threads)


def test_nested_blocks_cancel_all_that_wait() -> None:
    one, two = threading.Event(), threading.Event()
    with installed(), deferred(one.set), deferred(two.set):
        ctrl_c()
        assert one.wait(WAIT)
        assert two.wait(WAIT)


def test_second_signal_is_raised_also_in_a_deferred_block() -> None:
    with installed(), deferred():
        ctrl_c()
        with pytest.raises(Interrupted) as caught:
            ctrl_c(signal.SIGTERM)
        assert caught.value.number == signal.SIGINT, "the first one counts"


def test_signal_after_the_block_is_raised_again() -> None:
    with installed():
        with deferred():
            pass
        with pytest.raises(Interrupted):
            ctrl_c()


def test_another_thread_than_the_main_one_installs_nothing() -> None:
    seen: list[object] = []

    def run() -> None:
        with installed():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    before = signal.getsignal(signal.SIGINT)
    thread.start()
    thread.join()
    assert seen == [before]


CLEANING = """
import signal, sys
from vsssnap.cli import interrupts
with interrupts.installed():
    try:
        signal.raise_signal(signal.SIGINT)
    except interrupts.Interrupted:
        for _ in range(int(sys.argv[1])):
            signal.raise_signal(signal.SIGINT)
        print("cleaned up", flush=True)
"""


@pytest.mark.parametrize(
    ("more", "status", "out", "said"), [(0, 0, True, 0), (1, 0, True, 1), (2, 130, False, 1)]
)
def test_way_out_is_not_interrupted_but_by_the_last_word(
    more: int, status: int, out: bool, said: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLEANING, str(more)], capture_output=True, text=True, check=False, timeout=WAIT
    )
    assert done.returncode == status, done.stderr
    assert ("cleaned up" in done.stdout) is out
    assert done.stderr.count("still cleaning up; once more to leave everything as it is") == said


def test_state_is_fresh_each_time() -> None:
    with installed(), pytest.raises(Interrupted):
        ctrl_c()
    with installed():
        assert pending() == 0
        check()
    assert interrupts.pending() == 0


def test_interrupt_while_the_program_is_loaded_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped:
        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "vsssnap.cli.app":
                raise KeyboardInterrupt

    for name in [name for name in sys.modules if name.startswith("vsssnap.cli.app")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Stopped(), *sys.meta_path])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 130


def test_what_is_done_aside_gives_its_result_and_its_error() -> None:
    assert interrupts.aside(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        interrupts.aside(lambda: 1 // 0)


def test_what_cannot_be_done_aside_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    assert interrupts.aside(threading.get_ident) == threading.get_ident()


HUNG = """
import os, signal, sys
from vsssnap.blocks import mapped, pipeline
from vsssnap.cli import interrupts
mapped.BRIEFLY = pipeline.BRIEFLY = interrupts._BRIEFLY = 0.05
signal.alarm(120)  # if nobody is there any more who would end it
reading, _ = os.pipe()
calls = 0

def hanging(real):
    def read(*arguments):
        global calls
        calls += 1
        if calls > int(sys.argv[1]):
            os.write(1, b"stuck ")
            os.read(reading, 1)  # like a disk that does not answer
        return real(*arguments)
    return read

os.pread, os.preadv = hanging(os.pread), hanging(os.preadv)
from vsssnap.cli import app
app.run(sys.argv[2:])
"""

COMMANDS = {
    "verify": "verify IMAGE",
    "restore": "restore IMAGE target.raw",
    "convert": "convert IMAGE target.vhd",
    "compare": "compare IMAGE other.raw",
    "info": "info IMAGE",
    "save": "save IMAGE target.vhdx --live --input-format raw",
}


def ended_by_one_signal(folder: Path, command: str, suffix: str, reads: int) -> str | None:
    """Run a command on a disk that answers so many times.

    Returns:
        What it said when it was ended; None if it ended without another read.
    """
    image = f"image.{suffix}"
    for name in (image, "other.raw"):
        if not (folder / name).exists():
            save_image(Plain(noise(4 << 20)), folder / name)
    before = sorted(path.name for path in folder.iterdir())
    with subprocess.Popen(
        [sys.executable, "-c", HUNG, str(reads), *COMMANDS[command].replace("IMAGE", image).split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    ) as process:
        try:
            assert process.stdout is not None
            if process.stdout.read(6) != "stuck ":
                return None
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=WAIT)
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert sorted(path.name for path in folder.iterdir()) == before
    return said


# As many reads as the image is opened with, or a few more: those before a copy begins.
@pytest.mark.parametrize(
    ("command", "suffix", "reads"),
    [
        ("verify", "vsnap", 6),
        ("verify", "raw", 0),
        ("restore", "vsnap", 6),
        ("convert", "raw", 6),
        ("compare", "vsnap", 0),
    ],
)
def test_one_signal_ends_what_reads_a_disk_that_does_not_answer(
    tmp_path: Path, command: str, suffix: str, reads: int
) -> None:
    said = ended_by_one_signal(tmp_path, command, suffix, reads)
    assert said is not None
    assert "a read has not come back" in said


@pytest.mark.long
@pytest.mark.parametrize("suffix", ["vsnap", "raw"])
@pytest.mark.parametrize("command", COMMANDS)
def test_one_signal_ends_it_wherever_it_reads(tmp_path: Path, command: str, suffix: str) -> None:
    reads = 0
    while (said := ended_by_one_signal(tmp_path, command, suffix, reads)) is not None:
        assert "interrupted" in said
        reads += 1
    assert reads > 3
