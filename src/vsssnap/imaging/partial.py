"""A file that appears under its final name complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import sys
from typing import TYPE_CHECKING

from vsssnap.errors import TargetError, TargetRefusedError
from vsssnap.formats.base import SIDECAR_SUFFIX
from vsssnap.imaging.files import failed, flush_folder, remove

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

if sys.platform != "win32":
    import fcntl

_log = logging.getLogger("vsssnap.imaging")

SUFFIX = ".partial"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FLAGS |= getattr(os, "O_BINARY", 0)


class PartialFile:
    """``<path>.partial``, renamed to ``<path>`` by `commit` and removed by `discard`.

    A second save to the same name, and one that was killed earlier, are told apart: the file is
    locked while it is written (on Windows an open file cannot be removed, which says the same).
    Mode 0600; on Windows the rights are those of the folder.

    Attributes:
        path: The final name.
    """

    def __init__(self, path: str, *, replace: bool, origins: Iterable[str] = ()) -> None:
        """Create the partial file.

        Args:
            path: The final name.
            replace: Whether an existing file of that name, or one that a killed save left, goes.
            origins: Files that are being read and must not be replaced.

        Raises:
            TargetRefusedError: the name exists without ``replace``, is a link, a folder or a
                device, is one of ``origins``, or is open for writing somewhere.
            TargetError: the folder does not exist or cannot be written.
        """
        self.path = path
        self._partial = path + SUFFIX
        self._replace = replace
        check_name(path, SUFFIX)
        check_target(path, replace=replace, origins=origins)
        self._remove_stale()
        try:
            self._fd = os.open(self._partial, _FLAGS, 0o600)
        except FileExistsError:
            raise _being_written(self._partial) from None
        except OSError as exc:
            raise failed(self._partial, "open", exc, "cannot be created") from exc
        self._lock = -1
        self._pending = True
        try:
            self._hold()
        except BaseException:
            self.discard()
            raise

    def _hold(self) -> None:
        """Lock the file, and make sure that its name still stands for it."""
        if sys.platform != "win32":
            try:
                # A descriptor of its own keeps the lock, however long the writer's lives.
                self._lock = os.dup(self._fd)
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another save found it without a lock, and is about to remove it
                raise _being_written(self._partial) from None
            except OSError as exc:
                if self._lock < 0:
                    raise failed(self._partial, "dup", exc, "cannot be locked") from exc
                # A file system without locks: then there is none.
            if not self._is_ours():
                raise _being_written(self._partial)

    def _is_ours(self) -> bool:
        """Whether the name stands for the file that was created; on Windows nobody can take it from us."""
        if self._lock < 0:
            return sys.platform == "win32"
        try:
            return _is_same(os.fstat(self._lock), os.lstat(self._partial))
        except OSError:
            return False

    def take(self) -> int:
        """The file's descriptor, once: the caller closes it, on Windows before `commit` and `discard`."""
        fd, self._fd = self._fd, -1
        return fd

    def _remove_stale(self) -> None:
        """Remove what a killed save left, if that is asked for and nobody writes it."""
        with _stale(self.path, replace=self._replace) as found:
            if not found:
                return
            try:
                os.unlink(self._partial)
            except OSError as exc:
                if sys.platform == "win32" and isinstance(exc, PermissionError):
                    raise _being_written(self._partial) from None
                raise failed(self._partial, "unlink", exc, "cannot be removed") from exc

    def commit(self) -> None:
        """Give the file its final name; it was flushed by its writer.  `discard` must follow if this raises.

        Raises:
            TargetRefusedError: the name came into being meanwhile and ``replace`` was not given.
            TargetError: the rename failed, or somebody put another file in place of the partial one.
        """
        self._close()
        if not self._is_ours():
            raise TargetError(
                f"{self._partial} was removed or replaced while it was written",
                path=self._partial,
                hint="save again, and let no other program work on it",
            )
        try:
            self._rename()
            self._pending = False
            flush_folder(self.path)
        except BaseException:
            if not self._replace and self.placed:  # what ends with an error is not there
                remove(self.path)
            raise
        self._unlock()

    def _rename(self) -> None:
        try:
            if self._replace:
                os.replace(self._partial, self.path)
            elif sys.platform == "win32":
                os.rename(self._partial, self.path)
            else:
                _rename_to_new(self._partial, self.path)
        except FileExistsError:
            raise TargetRefusedError(
                f"{self.path} came into being while the image was written",
                path=self.path,
                hint="choose another name, or pass replace=True",
            ) from None
        except OSError as exc:
            raise failed(self.path, "rename", exc, "cannot be given its name") from exc

    @property
    def placed(self) -> bool:
        """Whether the final name stands for this file, also where Ctrl-C came into `commit`."""
        if self._lock < 0:  # committed, or Windows
            return not os.path.lexists(self._partial)
        try:
            return _is_same(os.fstat(self._lock), os.lstat(self.path))
        except OSError:
            return False

    def discard(self) -> None:
        """Remove the file unless it was committed, or is another save's by now.  Idempotent.

        One that cannot be removed is logged: whatever ended the save is what its caller must know.
        """
        self._close()
        if self._pending:
            self._pending = False
            try:
                if self._is_ours():
                    os.unlink(self._partial)
            except OSError as exc:
                _log.warning("%s is left behind, it cannot be removed: %s", self._partial, exc)
        self._unlock()

    def _close(self) -> None:
        fd = self.take()
        if fd >= 0:
            os.close(fd)

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _rename_to_new(old: str, new: str) -> None:
    """Rename without ever replacing, as link and unlink; plain rename where there are no links."""
    try:
        os.link(old, new, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(new):
            raise FileExistsError(new) from None
        os.rename(old, new)
        return
    os.unlink(old)


def check_name(path: str, added: str) -> None:
    """Refuse a name that is too long with what is added to it while the file is written.

    Raises:
        TargetRefusedError: it is.
    """
    if sys.platform != "win32":
        folder, name = os.path.split(path)
        try:
            most = os.pathconf(folder or ".", "PC_NAME_MAX") - len(added)
        except OSError:
            return  # there is no such folder, which is said elsewhere, or no limit
        length = len(os.fsencode(name))
        if length > most:
            raise TargetRefusedError(
                f"{path}: a name of {length} bytes; {most} are the most, for {added} is added meanwhile",
                path=path,
                code=errno.ENAMETOOLONG,
                hint="choose a shorter name",
            )


def check_target(path: str, *, replace: bool, origins: Iterable[str]) -> None:
    """Refuse what `PartialFile` would refuse of a name, and touch nothing.

    Raises:
        TargetRefusedError: see `PartialFile`.
        TargetError: the name cannot be looked at.
    """
    if path.endswith(("/", os.sep)):
        raise TargetRefusedError(f"{path} names a folder", path=path, hint="name a file")
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        _check_folder(path)
        return
    except OSError as exc:
        raise failed(path, "lstat", exc, "cannot be looked at") from exc
    if stat.S_ISLNK(found.st_mode):
        raise TargetRefusedError(
            f"{path} is a symbolic link to {os.readlink(path)}", path=path, hint="name the file itself"
        )
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
        raise TargetRefusedError(f"{path} is {kind}", path=path, hint="name a file")
    for origin in origins:
        for read in (origin, origin + SIDECAR_SUFFIX):
            try:
                same = os.path.samestat(os.stat(read), found)
            except OSError:
                continue  # it has no place in the file system, or not any more
            if same:
                raise TargetRefusedError(f"{path} is what is being read", path=path, hint="name another file")
    if not replace:
        raise TargetRefusedError(
            f"{path} exists", path=path, hint="choose another name, or pass replace=True"
        )
    _refuse_written(path)
    _check_writable(path)


def check_partial(path: str, *, replace: bool) -> None:
    """Refuse what `PartialFile` would refuse of the partial file of a name, and touch nothing.

    Raises:
        TargetRefusedError: one is being written, or a killed save left it and ``replace`` is not given.
    """
    with _stale(path, replace=replace):
        pass


@contextlib.contextmanager
def _stale(path: str, *, replace: bool) -> Iterator[bool]:
    """Whether a killed save left a partial file, which may go; nobody else takes it meanwhile."""
    partial = path + SUFFIX
    with contextlib.ExitStack() as stack:
        if sys.platform != "win32":
            try:
                fd = os.open(partial, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                yield False
                return
            except OSError as exc:
                raise TargetRefusedError(
                    f"{partial} is in the way: {exc.strerror}",
                    path=partial,
                    call="open",
                    code=exc.errno,
                    hint="remove it",
                ) from exc
            stack.callback(os.close, fd)
            # Under the lock: the name may be that of another save since we opened it.
            if _is_locked(fd) or not _is_named(fd, partial):
                raise _being_written(partial)
        found = os.path.lexists(partial)
        if found and not replace:
            raise TargetRefusedError(
                f"{partial} exists: a save to {path} was killed before it was complete",
                path=partial,
                hint="remove it, or pass replace=True",
            )
        yield found


def _refuse_written(path: str) -> None:
    """A file in use is not replaced: its user would go on writing into one that has no name any more."""
    if sys.platform != "win32":  # where an open file cannot be replaced
        from vsssnap._posix import leases

        if leases.is_written(path):
            raise TargetRefusedError(
                f"{path} is open for writing: a program, a virtual machine or a loop device uses it",
                path=path,
                hint="end what uses it (lsof or losetup -j tell), or choose another name",
            )


def _is_locked(fd: int) -> bool:
    """Whether somebody else has the lock; without locks here a file is taken as left behind."""
    if sys.platform != "win32":
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False


def _is_named(fd: int, path: str) -> bool:
    """Whether a name stands for an open file, or for nothing."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    # Some network file systems give a file another number each time it is looked at.
    return os.path.samestat(one, other) or (
        stat.S_ISREG(other.st_mode) and (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
    )


def _check_folder(path: str) -> None:
    """Whether a new file may be made there: a mistyped device must not become one."""
    folder = os.path.dirname(path) or "."
    try:
        found = os.stat(folder)
        among = (os.path.realpath(folder) + "/").startswith("/dev/")
        devices = os.stat("/dev") if among else None
    except OSError as exc:
        raise failed(path, "open", exc, "cannot be created") from exc
    if devices is not None and found.st_dev == devices.st_dev:
        raise TargetRefusedError(
            f"there is no device {path}", path=path, hint="check the name; files do not belong there"
        )
    _check_writable(path)


def _check_writable(path: str) -> None:
    """Whether this user may make the partial file, as far as can be told without making it."""
    folder = os.path.dirname(path) or "."
    if sys.platform != "win32" and not os.access(
        folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids
    ):
        number = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
        raise failed(path + SUFFIX, "open", OSError(number, os.strerror(number)), "cannot be created")


def _being_written(path: str) -> TargetRefusedError:
    return TargetRefusedError(
        f"{path} is being written by another process or thread",
        path=path,
        hint="wait until it is done, stop it, or choose another name",
    )
