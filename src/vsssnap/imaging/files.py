"""Small steps with files that are ours, and how they fail."""

from __future__ import annotations

import errno
import os
import sys

from vsssnap.errors import TargetError


def remove(path: str) -> None:
    """Remove a file of ours; one that is not there is no error.

    Raises:
        TargetError: it cannot be removed.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise failed(path, "unlink", exc, "cannot be removed") from exc


def size_of(path: str) -> int | None:
    """Bytes of a finished image; None if somebody took it away already."""
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def flush_folder(path: str) -> None:
    """Make a rename or removal in the folder of ``path`` survive a power cut."""
    if sys.platform != "win32":
        folder = -1
        try:
            folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            os.fsync(folder)
        except PermissionError:
            return  # a folder that can be written but not listed; its entry goes out with the journal
        except OSError as exc:
            if folder >= 0 and exc.errno == errno.EINVAL:
                return  # a file system that has no such call for folders
            raise failed(path, "fsync", exc, "its folder cannot be written out") from exc
        finally:
            if folder >= 0:
                os.close(folder)


def failed(path: str, call: str, exc: OSError, what: str) -> TargetError:
    """The error for a call that failed on a target's file or folder."""
    hints = {"open": "the folder must exist and be writable"}
    if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hints[call] = "the folder must be writable by this user"
    if exc.errno == errno.EROFS:
        hints[call] = "the file system is mounted read-only: name a place on another one"
    if exc.errno == errno.ENOTDIR:
        hints[call] = "what stands before its last part is a file; name a folder"
    return TargetError(
        f"{path} {what}: {exc.strerror}",
        path=path,
        call=call,
        code=exc.errno,
        hint=hints.get(call, "check the disk that holds it"),
    )
