"""What the Linux kernel and this process's rights give; every look leaves nothing behind."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import sys
from collections.abc import Callable, Iterator

from vsssnap._posix import mounts
from vsssnap.cli.checks import Check
from vsssnap.cli.system import (
    CAP_DAC_READ_SEARCH,
    CAP_LEASE,
    CAP_SYS_ADMIN,
    file_system_known,
    find_program,
    has_capability,
    may_administer,
)
from vsssnap.errors import VssSnapError

assert sys.platform != "win32"  # noqa: S101 - mypy for win32 skips the rest

# <linux/fs.h>: FICLONE is _IOW(0x94, 9, int); <asm-generic/ioctl.h> encodes it so, PowerPC, MIPS,
# SPARC and Alpha with another bit for the direction.
FICLONE = 0x80049409 if os.uname().machine.startswith(("ppc", "mips", "sparc", "alpha")) else 0x40049409

_PROGRAMS = (
    ("losetup", "util-linux", "loop devices, for the demo and for mounting raw images"),
    ("mount", "mount", "mounting, for the demo"),
    ("mkfs.xfs", "xfsprogs", "the demo's outer file system, whose files can be cloned"),
    ("mkfs.ext4", "e2fsprogs", "the demo's inner file system"),
    ("e2fsck", "e2fsprogs", "the demo's check of both images"),
)

_NO_ROOM = "make room, or name another folder"


def checks(folder: str) -> Iterator[Check]:
    """Look at rights, kernel, programs, and what the file system of a folder can do."""
    yield from _rights()
    yield from _kernel()
    yield from _folder(folder)
    for program, package, use in _PROGRAMS:
        found = find_program(program)
        remedy = "" if found else f"install {package} (Debian's name)"
        yield Check("programs", program, found is not None, f"{use}{': ' + found if found else ''}", remedy)
    service = "systemd" if os.path.isdir("/run/systemd/system") else find_program("service") or ""
    yield Check(
        "programs",
        "service manager",
        bool(service),
        f"--stop-service, through {service}" if service else "--stop-service",
        "" if service else "use --before and --after with the service's own commands",
    )


def _rights() -> Iterator[Check]:
    as_root = "run as root, or give the program this capability"
    user = f"user {os.geteuid()}"
    for name, number, use in (
        ("CAP_SYS_ADMIN", CAP_SYS_ADMIN, "freezing file systems, loop devices, mounting"),
        ("CAP_DAC_READ_SEARCH", CAP_DAC_READ_SEARCH, "reading devices and files of other users"),
        ("CAP_LEASE", CAP_LEASE, "leases on files of other users, which show that nobody writes them"),
    ):
        has = has_capability(number)
        yield Check("rights", name, has, f"{use} ({user})", "" if has else as_root)


def _kernel() -> Iterator[Check]:
    yield Check("kernel", "Linux", True, f"{platform.release()} on {platform.machine()}")
    loop = os.path.exists("/dev/loop-control")
    usable = loop and os.access("/dev/loop-control", os.R_OK | os.W_OK)
    yield Check(
        "kernel",
        "loop devices",
        usable,
        "/dev/loop-control" if loop else "no /dev/loop-control",
        ""
        if usable
        else "run as root"
        if loop
        else "load the module loop; in a container, pass its devices in",
    )
    for name in ("ext4", "xfs", "btrfs"):
        known = file_system_known(name)
        yield Check(
            "kernel", name, known, "file system", "" if known else f"load or install the module {name}"
        )


def _folder(folder: str) -> Iterator[Check]:
    group = f"folder {folder}"
    try:
        mount = mounts.containing(folder)
        yield Check(
            group, "file system", True, f"{mount.filesystem} on {mount.source or '-'}, at {mount.mount_point}"
        )
    except VssSnapError as exc:
        yield Check(group, "file system", False, exc.message, exc.hint)
        return
    try:
        # Of a folder that was removed: a file without a name could be made there, but no image.
        if not os.stat(folder).st_nlink:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        remedies = {
            errno.ENOENT: "name a folder that exists",
            errno.EOPNOTSUPP: "name a folder on ext4, XFS, btrfs or tmpfs",
            **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _NO_ROOM),
        }
        remedy = remedies.get(exc.errno or 0, "name one you may write")
        yield Check(group, "O_TMPFILE", False, f"files without a name: {exc.strerror}", remedy)
        return
    try:
        yield Check(group, "O_TMPFILE", True, "files without a name, which vanish when a process is killed")
        yield _tried(group, "room", "writing into files", lambda: os.pwrite(fd, b"x" * 65536, 0), _NO_ROOM)
        yield _tried(group, "FICLONE", "clones, which provider reflink needs", lambda: _clone(fd, folder),
                     "keep volumes in files on XFS (reflink=1) or btrfs")  # fmt: skip
        yield _tried(group, "FIFREEZE", "freezing: needs CAP_SYS_ADMIN", _freeze_allowed, "run as root")
        yield _tried(group, "leases", "seeing that a file is being written", lambda: _lease(fd),
                     "name a folder on a local file system")  # fmt: skip
        yield _tried(
            group, "sparse files", "holes in images", lambda: _holes(fd), "images take their full size here"
        )
        yield _tried(group, "O_DIRECT", "reading past the page cache", lambda: _direct(fd),
                     "nothing to do: reads go through the cache")  # fmt: skip
    finally:
        os.close(fd)


def _tried(group: str, name: str, use: str, attempt: Callable[[], object], remedy: str) -> Check:
    try:
        attempt()
    except OSError as exc:
        return Check(group, name, False, f"{use}: {exc.strerror}", remedy)
    return Check(group, name, True, use)


def _clone(fd: int, folder: str) -> None:
    other = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.ioctl(other, FICLONE, fd)
    finally:
        os.close(other)


def _freeze_allowed() -> None:
    # Freezing would stop every writer of this file system; what it needs is the capability.
    if not may_administer():
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def _lease(fd: int) -> None:
    # Its only opener may hold a write lease; it goes with the descriptor.
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _holes(fd: int) -> None:
    os.ftruncate(fd, 1 << 20)
    # 64 KiB of data and a hole of 960 KiB: a file system that knows holes says where it begins.
    if os.lseek(fd, 0, os.SEEK_HOLE) >= 1 << 20:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def _direct(fd: int) -> None:
    os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC))
