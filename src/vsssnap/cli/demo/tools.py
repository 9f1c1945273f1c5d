"""Programs of the system, loop devices and mounts, each given back on every path."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

from vsssnap.cli import interrupts
from vsssnap.cli.common import CommandFailedError
from vsssnap.cli.system import find_program

assert sys.platform != "win32"  # noqa: S101 - mypy for win32 skips the rest

_LATE = 60.0  # seconds that a program may take


class ProgramError(CommandFailedError):
    """A program of the system is missing or failed; the text says which and why."""


def run(*command: str, allowed: tuple[int, ...] = (0,)) -> tuple[int, str]:
    """Run a program to its end.

    Ctrl-C on the terminal does not reach it: half a mount would be hard to undo.

    Args:
        command: Its name and arguments; no shell.
        allowed: Exit codes that are no failure.

    Returns:
        Its exit code, and what it wrote.

    Raises:
        ProgramError: it is missing, failed, or took longer than a minute.
    """
    path = find_program(command[0])
    if path is None:
        raise ProgramError(f"{command[0]} is not installed")
    try:
        done = subprocess.run(
            [path, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_LATE,
            start_new_session=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise ProgramError(f"{' '.join(command)} took longer than {_LATE:.0f} s") from None
    except OSError as exc:
        raise ProgramError(f"{path} cannot be started: {exc.strerror}") from exc
    text = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode not in allowed:
        last = text.splitlines()[-1] if text else f"exit code {done.returncode}"
        raise ProgramError(f"{' '.join(command)}: {last}")
    return done.returncode, text


@contextlib.contextmanager
def loop_device(path: str, *, readonly: bool = False) -> Iterator[str]:
    """A loop device over a file; its name."""
    interrupts.check()
    options = ["--read-only"] if readonly else []
    device = _attach(options, path)
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


def _attach(options: list[str], path: str) -> str:
    for tries in range(5):
        try:
            return run("losetup", *options, "--find", "--show", path)[1]
        except ProgramError:
            # Another program took the free device that was found; look again.
            if tries == 4:
                raise
            time.sleep(0.1)
    raise ProgramError("losetup found no free device")


@contextlib.contextmanager
def mounted(device: str, folder: str, file_system: str, *, readonly: bool = False) -> Iterator[str]:
    """A file system mounted on a new folder."""
    interrupts.check()
    os.mkdir(folder, 0o700)
    options = "nodev,nosuid,noatime" + (",ro" if readonly else "")
    run("mount", "-t", file_system, "-o", options, device, folder)
    try:
        yield folder
    finally:
        unmount(folder)


def unmount(folder: str) -> None:
    """Unmount a file system; for 10 s again while somebody still has a file open."""
    until = time.monotonic() + 10
    while True:
        try:
            run("umount", folder)
            return
        except ProgramError:
            # A process that was killed may hold its files for a moment more.
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def extents(path: str) -> list[tuple[int, int, int]]:
    """Where a file lies on its device: ``(offset in the file, offset on the device, length)``.

    Source: Linux Documentation/filesystems/fiemap.rst; FS_IOC_FIEMAP is _IOWR('f', 11, 32 bytes),
    the same number on every architecture.
    """
    most = 256
    head = struct.Struct("=QQIIII")  # start, length, flags, mapped, room for extents, reserved
    one = struct.Struct("=QQQQQIIII")  # logical, physical, length, 2 reserved, flags, 3 reserved
    buffer = bytearray(head.size + most * one.size)
    head.pack_into(buffer, 0, 0, (1 << 64) - 1, 1, 0, most, 0)  # flag 1: FIEMAP_FLAG_SYNC
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, 0xC020660B, buffer)
    finally:
        os.close(fd)
    mapped = head.unpack_from(buffer)[3]
    return [one.unpack_from(buffer, head.size + index * one.size)[:3] for index in range(mapped)]


def on_device(path: str, offset: int, length: int) -> list[range]:
    """The bytes of a device that hold a part of a file."""
    found = []
    for logical, physical, size in extents(path):
        first, last = max(logical, offset), min(logical + size, offset + length)
        if first < last:
            found.append(range(physical + first - logical, physical + last - logical))
    return found


def between(left: list[range], right: list[range]) -> int | None:
    """An offset that has all of one on one side and all of the other on the other side."""
    for low, high in ((left, right), (right, left)):
        last, first = max(part.stop for part in low), min(part.start for part in high)
        if last <= first:
            return (last + first) // 2 // 4096 * 4096 if first - last >= 8192 else last
    return None
