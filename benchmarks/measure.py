"""Running commands in turn, and what the system counted of each.

A machine's speed drifts by a factor of two within minutes, so seconds of different minutes
cannot be compared.  Contenders run in rounds, A B C A B C, and what is reported is the median
of the ratios within a round, with the quartiles.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

DEADLINE = 900.0  # seconds for one run of one contender


@dataclasses.dataclass(frozen=True)
class Contender:
    """A command that is timed as a whole process, from its start to its end.

    Attributes:
        name: In the report.
        command: Its arguments; a string is given to ``sh -c`` (a pipeline of peers).
        output: File or folder it makes, removed before each run; its size is reported.
        source: File it reads; read once before each run, so that the cache is warm for everybody.
        before: Called before each run, outside of the time.
    """

    name: str
    command: Sequence[str] | str
    output: Path | None = None
    source: Path | None = None
    before: Callable[[], None] | None = None


@dataclasses.dataclass(frozen=True)
class Run:
    """What one run took.

    Attributes:
        wall: Seconds.
        cpu: Seconds of all its processes, in user and system mode.
        memory: Peak resident bytes of its largest process; never below those of this one, which it is
            forked from.
        output: Bytes of what it made, as stored.
        said: The end of its standard output.
    """

    wall: float
    cpu: float
    memory: int
    output: int
    said: str


Rounds = dict[str, list[Run]]


class BenchmarkError(RuntimeError):
    """A contender failed, or what a scene needs is not there."""


def rounds(contenders: Sequence[Contender], count: int) -> Rounds:
    """Run all contenders in turn, ``count`` times."""
    found: Rounds = {contender.name: [] for contender in contenders}
    for number in range(count):
        for contender in contenders:
            found[contender.name].append(run(contender))
            print(
                f"    {number + 1}/{count} {contender.name}: {found[contender.name][-1].wall:.2f} s",
                flush=True,
            )
    return found


def prepared(contender: Contender) -> Sequence[str]:
    """Make everything ready for a run; the command."""
    remove(contender.output)
    if contender.before is not None:
        contender.before()
    if contender.source is not None:
        warm(contender.source)
    os.sync()
    return ["sh", "-ec", contender.command] if isinstance(contender.command, str) else contender.command


def run(contender: Contender) -> Run:
    """Run a contender once.

    Raises:
        BenchmarkError: it failed or took too long.
    """
    command = prepared(contender)
    with tempfile.TemporaryFile() as out:
        started = time.perf_counter()
        # Its own session, so that a pipeline is stopped as a whole.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        with _limited(process):
            _, status, usage = os.wait4(process.pid, 0)
            flush(contender.output)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(max(0, out.seek(0, os.SEEK_END) - 2000))
        said = out.read().decode(errors="replace").strip()
    if process.returncode:
        raise BenchmarkError(f"{contender.name} ended with {process.returncode}: {said[-600:]}")
    stored = stored_bytes(contender.output) if contender.output is not None else 0
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10, stored, said)


@contextlib.contextmanager
def _limited(process: subprocess.Popen[bytes]) -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        os.killpg(process.pid, signal.SIGKILL)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, DEADLINE)
    try:
        yield
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def flush(path: Path | None) -> None:
    """Wait until a file or folder is on the disk.

    vsssnap flushes what it writes before it says that it is there; so that nobody is ahead for
    not doing that, the time of every contender ends when its output is flushed.
    """
    if path is None or not path.exists():
        return
    for found in [path, *path.rglob("*")] if path.is_dir() else [path]:
        fd = os.open(found, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def warm(path: Path) -> None:
    """Read a file once, but for its holes."""
    buffer = bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            while at < end:
                count = os.preadv(file.fileno(), [buffer], at)
                if not count:
                    return
                at += count


def stored_bytes(path: Path) -> int:
    """Bytes on disk of a file or folder."""
    paths = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(found.stat().st_blocks * 512 for found in paths if found.is_file())


def remove(path: Path | None) -> None:
    """Remove a file or folder, if it is there."""
    if path is None:
        return
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True)
class Spread:
    """Quartiles of a figure over the rounds."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one value or more."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, median, high)
