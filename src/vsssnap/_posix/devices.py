"""Block devices and files as sources and targets.

Source: open(2); <linux/fs.h> and block/bdev.c on O_EXCL without O_CREAT: a
block device that somebody holds exclusively (a mount, swap, device-mapper, md, or another
program that asked) cannot be opened so again, and while we hold it, nobody else gets it.
Plain opens are not kept out.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import Literal

from vsssnap._arguments import path_text
from vsssnap._files import Opened
from vsssnap._units import MIB
from vsssnap.errors import (
    DeviceReadError,
    SnapshotBusyError,
    SnapshotError,
    SnapshotPermissionError,
    TargetError,
    TargetRefusedError,
)

__all__ = ["Opened", "identify", "open_source", "open_target", "zero_out"]


assert sys.platform != "win32"  # noqa: S101 - mypy for win32 skips the rest

from vsssnap._posix import ioctls, mounts  # noqa: E402 - only readable on Linux
from vsssnap._posix.topology import usage  # noqa: E402 - likewise

FILE_SECTOR = 512  # bytes; what a regular file is taken to have

_ZERO_STEP = 128 * MIB  # bytes for one BLKZEROOUT, which cannot be interrupted on older kernels
_ZEROS = memoryview(bytes(MIB))
_NO_MEDIUM = "put a medium in, or attach it"


def open_source(path: str | os.PathLike[str], *, exclusive: bool = False) -> Opened:
    """Open a block device or a regular file for reading.

    Args:
        path: Its name; links are followed.
        exclusive: Hold a block device exclusively (O_EXCL) for as long as it is open.

    Raises:
        UsageError: the name is no path.
        DeviceReadError: there is none, it is neither, it has no medium, or it cannot be opened.
        SnapshotPermissionError: the process may not read it.
        SnapshotBusyError: it is held by somebody else, or a file server has a lease on it.
    """
    name = path_text(path)
    kind = identify(name)[0]
    # Without O_NONBLOCK the open of a file that a file server has a lease on waits for it to
    # let go, up to /proc/sys/fs/lease-break-time.  On a device the flag means something else.
    flags = os.O_RDONLY | os.O_CLOEXEC
    flags |= os.O_NONBLOCK if kind == "file" else os.O_EXCL if exclusive else 0
    try:
        fd = os.open(name, flags)
    except OSError as exc:
        raise _unopened(name, exc) from exc
    try:
        os.set_blocking(fd, True)
        return _opened(fd, name, kind)
    except BaseException as exc:
        os.close(fd)
        if isinstance(exc, OSError) and not isinstance(exc, DeviceReadError):
            raise _unopened(name, exc) from exc
        raise


def identify(path: str | os.PathLike[str]) -> tuple[Literal["file", "block"], int, int]:
    """`Opened.identity` of what a name stands for, without opening it.

    It is asked before anything is opened: opening a FIFO waits, opening a tape rewinds it.

    Raises:
        UsageError: the name is no path.
        DeviceReadError: there is none, or it is neither a block device nor a regular file.
        SnapshotPermissionError: the process may not look for it.
    """
    name = path_text(path)
    try:
        found = os.stat(name)
    except OSError as exc:
        raise _unopened(name, exc, call="stat") from exc
    return _identity(found, name)


def _identity(found: os.stat_result, name: str) -> tuple[Literal["file", "block"], int, int]:
    if _kind_of(found, name) == "file":
        return ("file", found.st_dev, found.st_ino)
    return ("block", os.major(found.st_rdev), os.minor(found.st_rdev))


def _kind_of(found: os.stat_result, name: str) -> Literal["file", "block"]:
    if stat.S_ISREG(found.st_mode):
        return "file"
    if stat.S_ISBLK(found.st_mode):
        return "block"
    what = next(
        word
        for test, word in (
            (stat.S_ISDIR, "a folder"),
            (stat.S_ISCHR, "a character device"),
            (stat.S_ISFIFO, "a FIFO"),
            (stat.S_ISSOCK, "a socket"),
            (bool, "something else"),
        )
        if test(found.st_mode)
    )
    raise DeviceReadError(
        f"{name} is {what}, not a block device or a regular file",
        code=errno.ENOTBLK,
        hint=_device_of(name) if stat.S_ISDIR(found.st_mode) else "name a device or a file",
    )


def _device_of(folder: str) -> str:
    """The remedy for a folder: the device that holds it, by its name if it has one."""
    try:
        source = mounts.containing(folder).source
    except SnapshotError:
        source = ""
    return f"name the device that holds it, {source}" if source.startswith("/") else "name a device or a file"


def _opened(fd: int, name: str, kind: Literal["file", "block"]) -> Opened:
    found = os.fstat(fd)
    if _kind_of(found, name) != kind:
        raise DeviceReadError(f"{name} was exchanged while it was opened", hint="try again")
    identity = _identity(found, name)
    if kind == "file":
        return Opened(fd, kind, found.st_size, FILE_SECTOR, name, identity)
    size = ioctls.get_u64(fd, ioctls.BLKGETSIZE64)
    sector_size = ioctls.get_int(fd, ioctls.BLKSSZGET)
    if not size:
        # A loop device that is not attached, an empty card reader: no image of nothing.
        raise DeviceReadError(f"{name} has 0 bytes", code=errno.ENOMEDIUM, hint=_NO_MEDIUM)
    return Opened(fd, kind, size, sector_size, name, identity, found.st_rdev)


def _unopened(
    name: str, exc: OSError, call: str = "open"
) -> DeviceReadError | SnapshotPermissionError | SnapshotBusyError:
    code = exc.errno
    if code in (errno.EACCES, errno.EPERM):
        return SnapshotPermissionError(
            f"{name} may not be read by this user",
            call=call,
            code=code,
            hint="run as root, or join the group that owns it (usually disk)",
        )
    if code == errno.EBUSY:
        return SnapshotBusyError(
            f"{name} is held by the system or another program",
            call=call,
            code=code,
            hint="unmount it, or stop what uses it",
        )
    if code == errno.EWOULDBLOCK:
        return SnapshotBusyError(
            f"{name} is under a lease of another program, such as a file server",
            call=call,
            code=code,
            hint="it has been asked to let go; try again in a moment",
        )
    if code in (errno.ENOENT, errno.ENOTDIR):
        return DeviceReadError(f"there is no {name}", call=call, code=code, hint="check the name")
    hint = _NO_MEDIUM if code in (errno.ENOMEDIUM, errno.ENXIO, errno.ENODEV) else "look at the kernel's log"
    return DeviceReadError(f"{name} cannot be opened: {exc.strerror}", call=call, code=code, hint=hint)


def open_target(path: str | os.PathLike[str], *, files: bool = False) -> Opened:
    """Open a block device for reading and writing, if it is free; hold it exclusively.

    Args:
        path: Its name; links are followed.
        files: Whether a regular file will do, too; it may not be swap or behind a loop device.

    Raises:
        UsageError: the name is no path.
        TargetRefusedError: it is no block device, read-only, has no medium, or it or one of its
            partitions is mounted, swap, part of another device, behind a loop device, or held.
        TargetError: it cannot be opened.
        SnapshotPermissionError: the process may not write it.
    """
    name = path_text(path)
    try:
        found = os.stat(name)
    except OSError as exc:
        raise _unwritable(name, exc) from exc
    kind: Literal["file", "block"] = "block" if stat.S_ISBLK(found.st_mode) else "file"
    if kind == "file" and not (files and stat.S_ISREG(found.st_mode)):
        wanted = "a block device or a regular file" if files else "a block device"
        raise TargetRefusedError(f"{name} is not {wanted}", path=name, hint=f"name {wanted}")
    if reason := usage(found):
        raise TargetRefusedError(f"{name} {reason}", path=name, hint="free it first, or choose another")
    try:
        if kind == "block":
            _refuse_readonly(name)
        # As in `open_source`; O_EXCL without O_CREAT is defined for block devices only.
        only = os.O_EXCL if kind == "block" else os.O_NONBLOCK
        fd = os.open(name, os.O_RDWR | os.O_CLOEXEC | only)
    except TargetRefusedError:
        raise
    except OSError as exc:
        raise _unwritable(name, exc) from exc
    try:
        os.set_blocking(fd, True)
        return _opened(fd, name, kind)
    except BaseException as exc:
        os.close(fd)
        if isinstance(exc, DeviceReadError):
            raise TargetRefusedError(exc.message, path=name, code=exc.code, hint=exc.hint) from None
        if isinstance(exc, OSError):
            raise _unwritable(name, exc) from exc
        raise


def _refuse_readonly(name: str) -> None:
    # Asked first: a read-only device refuses to be opened for writing with EACCES, to root too.
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        readonly = ioctls.get_int(fd, ioctls.BLKROGET)
    finally:
        os.close(fd)
    if readonly:
        raise TargetRefusedError(
            f"{name} is read-only", path=name, hint="look at its write protection, and blockdev --setrw"
        )


def _unwritable(name: str, exc: OSError) -> TargetError | SnapshotPermissionError:
    code = exc.errno
    if code in (errno.EACCES, errno.EPERM):
        return SnapshotPermissionError(
            f"{name} may not be written by this user", call="open", code=code, hint="run as root"
        )
    if code in (errno.EBUSY, errno.EWOULDBLOCK, errno.ETXTBSY):
        return TargetRefusedError(
            f"{name} is held by another program",
            path=name,
            call="open",
            code=code,
            hint="find it with lsof or fuser",
        )
    if code == errno.EROFS:
        return TargetRefusedError(
            f"{name} is on a read-only file system", path=name, call="open", code=code, hint="choose another"
        )
    if code in (errno.ENOMEDIUM, errno.ENXIO, errno.ENODEV):
        return TargetRefusedError(f"{name} has no medium", path=name, call="open", code=code, hint=_NO_MEDIUM)
    hint = "check the name" if code in (errno.ENOENT, errno.ENOTDIR) else "look at the kernel's log"
    return TargetError(
        f"{name} cannot be opened: {exc.strerror}", path=name, call="open", code=code, hint=hint
    )


def zero_out(fd: int, offset: int, length: int) -> None:
    """Make a range of a block device read as zeros: by the device's own command, or by writing them.

    Raises:
        OSError: as ioctl(2) and pwrite(2) report it.
    """
    end, sector = offset + length, 512
    first, last = -(-offset // sector) * sector, end - end % sector
    if first >= last:
        _write_zeros(fd, offset, length)
        return
    _write_zeros(fd, offset, first - offset)
    at = first
    while at < last:
        step = min(_ZERO_STEP, last - at)
        try:
            ioctls.on_range(fd, ioctls.BLKZEROOUT, at, step)
        except OSError as exc:
            if exc.errno not in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL):
                raise
            _write_zeros(fd, at, step)
        at += step
    _write_zeros(fd, last, end - last)


def _write_zeros(fd: int, offset: int, length: int) -> None:
    while length > 0:
        count = os.pwrite(fd, _ZEROS[: min(length, len(_ZEROS))], offset)
        if not count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        offset += count
        length -= count
