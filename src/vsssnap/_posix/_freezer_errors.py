"""What the errno of a freeze or a thaw means to whoever asked for a snapshot."""

from __future__ import annotations

import errno
import os

from vsssnap.errors import SnapshotBusyError, SnapshotError, SnapshotPermissionError


def refused(name: str, code: int) -> SnapshotError:
    call = "ioctl(FIFREEZE)"
    if code == errno.EBUSY:
        return SnapshotBusyError(
            f"{name}: somebody else has frozen the file system",
            call=call,
            code=code,
            hint=f"wait for the other snapshot, or thaw it: fsfreeze --unfreeze {name}",
        )
    if code in (errno.EPERM, errno.EACCES):
        return SnapshotPermissionError(
            f"{name}: freezing the file system is not permitted",
            call=call,
            code=code,
            hint="run as root, or with CAP_SYS_ADMIN in the user namespace of the mount",
        )
    if code in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL):
        return SnapshotError(
            f"{name}: this file system cannot be frozen",
            call=call,
            code=code,
            hint="require Consistency.CRASH, or unmount it",
        )
    return SnapshotError(
        f"{name}: freezing the file system failed: {os.strerror(code)}",
        call=call,
        code=code,
        hint="look for errors of the device in the kernel's log",
    )


def not_thawed(name: str, code: int) -> SnapshotError:
    if code == errno.EINVAL:
        return SnapshotError(
            f"{name}: somebody else thawed the file system within the instant, which is void",
            call="ioctl(FITHAW)",
            code=code,
            hint="try again, without another program that freezes and thaws this file system",
        )
    return SnapshotError(
        f"{name}: thawing the file system failed: {os.strerror(code)}",
        call="ioctl(FITHAW)",
        code=code,
        hint=f"thaw it by hand: fsfreeze --unfreeze {name}",
    )
