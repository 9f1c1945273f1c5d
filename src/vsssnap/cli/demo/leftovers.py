"""The folder that a demo works in, and what one that was killed has left: the next one removes it.

Who works in a folder holds a lock on it (flock(2)), which the system lets go with the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator

from vsssnap._posix import mounts
from vsssnap.cli.demo import tools

assert sys.platform != "win32"  # noqa: S101 - mypy for win32 skips the rest


@contextlib.contextmanager
def folder(prefix: str) -> Iterator[str]:
    """A new temporary folder, locked; whoever uses it empties it."""
    while True:
        path = tempfile.mkdtemp(prefix=prefix)
        with _locked(path) as mine:
            # Another demo may have come between, and taken it for one that nobody uses.
            if mine and os.path.exists(path):
                yield path
                return


def remove(prefix: str) -> list[str]:
    """Remove what demos left that do not run any more; the folders that are gone."""
    parent = tempfile.gettempdir()
    gone = []
    for name in sorted(os.listdir(parent)):
        path = os.path.join(parent, name)
        if not name.startswith(prefix) or not _is_ours(path):
            continue
        with _locked(path) as mine, contextlib.suppress(tools.ProgramError):
            if mine:
                _take_apart(os.path.realpath(path))
                shutil.rmtree(path, ignore_errors=True)
        if not os.path.exists(path):
            gone.append(path)
    return gone


def _is_ours(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


@contextlib.contextmanager
def _locked(path: str) -> Iterator[bool]:
    """Whether nobody else has the folder; then nobody gets it meanwhile."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


def _take_apart(path: str) -> None:
    """Unmount what is mounted below a folder, the latest first, and detach loop devices over its files."""
    below = path + os.sep
    for mount in reversed(mounts.read()):
        if mount.mount_point.startswith(below):
            tools.unmount(mount.mount_point)
            _detach(below)  # of one whose file system is mounted yet, the kernel lets go with that
    _detach(below)


def _detach(below: str) -> None:
    _, listed = tools.run("losetup", "--list", "--noheadings", "--raw", "--output", "NAME,BACK-FILE")
    for line in listed.splitlines():
        device, _, file = line.partition(" ")
        if file.startswith(below):
            tools.run("losetup", "--detach", device)
