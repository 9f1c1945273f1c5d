"""The scene on a real kernel: ext4 on a loop device over a file on XFS, and a process that writes it.

The file behind the loop device can be cloned, because XFS shares blocks between files
(reflinks); so the volume, frozen for an instant, can be kept as it is in a millisecond.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import vsssnap
from vsssnap.cli import interrupts
from vsssnap.cli.demo import bank, records, tools
from vsssnap.cli.demo.scene import DemoError, Scene, Verdict
from vsssnap.cli.demo.served import verdicts
from vsssnap.cli.system import file_system_known, find_program, may_administer

assert sys.platform != "win32"  # noqa: S101 - mypy for win32 skips the rest

_MIB = 1 << 20
_OUTER, _INNER = 512 * _MIB, 96 * _MIB  # what mkfs.xfs accepts at least is 300 MiB; both are sparse
_NEEDED = ("losetup", "mount", "umount", "mkfs.xfs", "mkfs.ext4", "e2fsck")
_START = 60.0  # seconds for the application to make its files


def why_not() -> str:
    """What this machine or process lacks for this scene, or ""."""
    if not may_administer():
        return "this process is not root (loop devices and mounting need CAP_SYS_ADMIN)"
    missing = [name for name in _NEEDED if find_program(name) is None]
    if missing:
        return f"these programs are not installed: {', '.join(missing)}"
    if not os.path.exists("/dev/loop-control"):
        return "there are no loop devices here (no /dev/loop-control)"
    lacking = [name for name in ("xfs", "ext4") if not file_system_known(name)]
    return f"this kernel lacks the file system {' and '.join(lacking)}" if lacking else ""


class _LoopedScene(Scene):
    """See the module."""

    told = (
        "The volume is ext4 on a loop device, whose backing file lies on XFS with reflinks.  On it another "
        "process keeps a file whose header counts its records, and an SQLite database in which money "
        "moves between accounts."
    )
    size = _INNER

    def __init__(self, folder: str, device: str, mount: str) -> None:
        self.volume = mount
        self._folder = folder
        self._device = device
        self._pulse = os.path.join(folder, "pulse")
        self._process: subprocess.Popen[bytes] | None = None
        self._stops: list[int] = []
        # Without read-ahead a block is read when its turn comes, and not before the stop.
        self._fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_RANDOM)

    @property
    def stops(self) -> list[int]:
        return self._stops

    def begin(self) -> None:
        """Set the application to work, and find where its files lie."""
        with open(self._pulse, "xb") as pulse:
            pulse.write(bytes(8))
        # The same package in the other process, wherever this one found it; -P: nothing from the
        # folder that this happens to run in.
        package = os.path.dirname(os.path.dirname(os.path.abspath(vsssnap.__file__)))
        paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "vsssnap.cli.demo.application"),
                *(self.volume, self._pulse, str(os.getpid())),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is this process's, which ends the other in its own order
            env={**os.environ, "PYTHONPATH": paths},
        )
        until = time.monotonic() + _START
        while not self.commits():
            interrupts.check()
            if time.monotonic() > until:
                raise DemoError(f"the application did not begin within {_START:.0f} s")
            time.sleep(0.02)
        self._find_stops()

    def _find_stops(self) -> None:
        file, database = (os.path.join(self.volume, name) for name in ("records", "bank.db"))
        end = os.stat(database).st_size
        for left, right in (
            (
                tools.on_device(file, 0, records.HEADER),
                tools.on_device(file, records.place(records.OLD), records.ROOM * records.RECORD),
            ),
            # The accounts are the database's first pages, their index and the log its last ones.
            (tools.on_device(database, 4096, 65536), tools.on_device(database, end - 65536, 65536)),
        ):
            stop = tools.between(left, right) if left and right else None
            if stop is None:
                raise DemoError("the file system laid the files out in an unusual way; run the demo again")
            self._stops.append(stop)
        self._stops = sorted(set(self._stops))

    def commits(self) -> int:
        process = self._process
        if process is None or process.poll() is not None:
            said = b"" if process is None or process.stderr is None else process.stderr.read()[-500:]
            raise DemoError(f"the application does not run: {said.decode('utf-8', 'replace').strip()}")
        with open(self._pulse, "rb") as pulse:
            return int(struct.unpack("<Q", pulse.read(8))[0])

    def read(self, length: int, offset: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def stop(self) -> None:
        process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stderr is not None:
                process.stderr.close()

    def close(self) -> None:
        """Let the device go."""
        os.close(self._fd)

    def examine(self, image: str, name: str) -> list[Verdict]:
        # First as the kernel would at the next mount: replay the journal.  Then only look.
        tools.run("e2fsck", "-E", "journal_only", "-y", image, allowed=tuple(range(16)))
        code, said = tools.run("e2fsck", "-f", "-n", image, allowed=tuple(range(16)))
        problems = [line for line in said.splitlines() if "? no" in line]
        text = "e2fsck: clean" if not code else f"e2fsck: {len(problems)} errors"
        first = Verdict("file system", not code, text, {"exit_code": code, "errors": problems[:20]})
        place = os.path.join(self._folder, name)
        try:
            with (
                tools.loop_device(image, readonly=True) as device,
                tools.mounted(device, place, "ext4", readonly=True),
            ):
                found, books = _look(place, os.path.join(self._folder, f"{name}.files"))
        except (OSError, tools.ProgramError) as exc:
            return [first, Verdict("files", False, f"cannot be read: {exc}")]
        return [first, *verdicts(found, books)]


def _look(mount: str, scratch: str) -> tuple[records.RecordsFound, bank.BankFound]:
    fd = os.open(os.path.join(mount, "records"), os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = records.check(lambda length, offset: os.pread(fd, length, offset), records.OLD + records.ROOM)
    finally:
        os.close(fd)
    # On a copy, because a journal beside the database is rolled back when it is opened.
    os.mkdir(scratch, 0o700)
    for name in ("bank.db", "bank.db-journal"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(os.path.join(mount, name), os.path.join(scratch, name))
    books = bank.check(os.path.join(scratch, "bank.db"))
    shutil.rmtree(scratch)
    return found, books


@contextlib.contextmanager
def build(folder: str) -> Iterator[Scene]:
    """The scene, at work; everything it makes lies in ``folder`` and is given back.

    Raises:
        ProgramError: this machine does not allow it after all.
    """
    with contextlib.ExitStack() as stack:
        outer, inner = os.path.join(folder, "outer.img"), os.path.join(folder, "outer", "inner.img")
        _sparse(outer, _OUTER)
        tools.run("mkfs.xfs", "-q", "-m", "reflink=1", outer)
        device = stack.enter_context(tools.loop_device(outer))
        stack.enter_context(tools.mounted(device, os.path.join(folder, "outer"), "xfs"))
        _sparse(inner, _INNER)
        tools.run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", inner)
        device = stack.enter_context(tools.loop_device(inner))
        mount = stack.enter_context(tools.mounted(device, os.path.join(folder, "volume"), "ext4"))
        scene = _LoopedScene(folder, device, mount)
        stack.callback(scene.close)
        stack.callback(scene.stop)
        scene.begin()
        yield scene


def _sparse(path: str, size: int) -> None:
    with open(path, "xb") as file:
        file.truncate(size)
