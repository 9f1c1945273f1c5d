"""Snapshots by cloning a file: XFS, btrfs and any other file system with FICLONE.

What is cloned is a regular file, or the file behind a loop device or behind a logical volume on
one, whose file system is flushed and frozen for the instant.  The clone has no name (O_TMPFILE), so
nothing is left however the process ends, and it shares its blocks with the original until they are
overwritten.

Source: ioctl_ficlonerange(2), ioctl_fsfreeze(2) as implemented by <linux/fs.h>, open(2).
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

assert sys.platform != "win32"  # noqa: S101 - mypy for win32 skips the rest

import fcntl  # noqa: E402 - there is none on Windows

from vsssnap._posix import loops, mounts  # noqa: E402 - likewise
from vsssnap._posix.devices import Opened  # noqa: E402 - likewise
from vsssnap._posix.freezer import Action, Freezer, Target  # noqa: E402 - likewise
from vsssnap._posix.ioctls import FICLONE  # noqa: E402 - likewise
from vsssnap.blocks.concat import gathered  # noqa: E402 - likewise
from vsssnap.blocks.device import DeviceReader  # noqa: E402 - after the above
from vsssnap.consistency import Consistency  # noqa: E402 - after the above
from vsssnap.errors import (  # noqa: E402 - after the above
    InsufficientStorageError,
    ProviderUnavailableError,
    SnapshotError,
    SnapshotLostError,
    SnapshotPermissionError,
    UsageError,
)
from vsssnap.providers.base import Offer, Provider, SnapshotRequest, SnapshotVolume, Taken  # noqa: E402 - after the above

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vsssnap._deadline import Deadline
    from vsssnap.blocks.reader import BlockReader

__all__ = ["ReflinkProvider"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FILE_SECTOR = 512


class _CannotError(Exception):
    """A volume that this provider cannot take, and why; its cause may be a lack of rights."""


@dataclass(slots=True)
class _Source:
    """One file to clone, and what of it is a volume.

    Attributes:
        key: Equal for two spellings of one volume.
        device: The device or file.
        backing: The file to clone.
        pieces: The volume in it, first byte and length of each; None for the whole file, as long as
            it is at the instant.
        sector_size: Of the volume, bytes.
        mount: The mounted file system to freeze, or None.
    """

    key: tuple[int, int, int]
    device: str
    backing: str
    pieces: tuple[tuple[int, int], ...] | None = None
    sector_size: int = _FILE_SECTOR
    mount: mounts.Mount | None = None
    fds: list[int] = field(default_factory=list)  # whatever is open, the clone last
    clone: int = -1


class ReflinkProvider(Provider):
    """Clones files with FICLONE; see the module."""

    name = "reflink"

    def __init__(self) -> None:
        self._sources: dict[tuple[int, int, int], _Source] = {}
        self._order: list[tuple[str, _Source]] = []
        self._freezer: Freezer | None = None
        self._frozen: list[int] = []
        self._unmounted: list[tuple[_Source, int]] = []
        self._taken = False

    def unusable(self) -> str:
        """See `Provider`."""
        return "" if sys.platform == "linux" else "FICLONE is a request of Linux"

    def probe(self, request: SnapshotRequest, /) -> Offer:
        """See `Provider`; asks for a clone of an empty unnamed file, which leaves nothing."""
        if request.persistent:
            return Offer(None, "its snapshots have no name and end with the process")
        try:
            sources: dict[tuple[int, int, int], _Source] = {}
            order: list[tuple[str, _Source]] = []
            for volume in request.volumes:
                found = _resolve(volume)
                # Two spellings of one volume share one source, and so one clone.
                order.append((str(volume), sources.setdefault(found.key, found)))
            for source in sources.values():
                _check_clone(source.backing)
                _check_freeze(source, sources.values())
        except _CannotError as exc:
            return Offer(None, str(exc), denied=isinstance(exc.__cause__, PermissionError))
        except SnapshotError as exc:  # no /proc, or another mount namespace
            return Offer(None, exc.message)
        except OSError as exc:  # a mount point that this user cannot reach
            why = f"{exc.filename or 'a volume'}: {exc.strerror}"
            return Offer(None, why, denied=isinstance(exc, PermissionError))
        still = [source for source in sources.values() if source.mount is None]
        if len(still) > 1:
            names = " and ".join(source.device for source in still)
            return Offer(
                None,
                f"{names} cannot be frozen, and two files cloned one after the other are not one instant",
            )
        self._order, self._sources = order, sources
        if still:
            return Offer(
                Consistency.CRASH, f"{still[0].device} has no mounted file system to flush and freeze"
            )
        return Offer(Consistency.FILESYSTEM)

    def prepare(self, request: SnapshotRequest, deadline: Deadline, /) -> None:
        """See `Provider`; opens everything and starts the helper that freezes."""
        offer = self.probe(request)
        if offer.level is None:
            raise ProviderUnavailableError(
                f"provider {self.name!r} cannot take this snapshot", reasons={self.name: offer.reason}
            )
        targets: list[Target] = []
        actions: list[Action] = []
        for source in self._sources.values():
            deadline.check("prepare a clone")
            origin = _open(source, source.backing, os.O_RDONLY)
            opened = os.fstat(origin)
            if (opened.st_dev, opened.st_ino) != source.key[:2]:
                raise SnapshotError(
                    f"{source.backing} was replaced by another file meanwhile", hint="try again"
                )
            source.clone = _open(source, os.path.dirname(source.backing) or ".", os.O_RDWR | os.O_TMPFILE)
            actions.append(Action(source.clone, FICLONE, origin, (origin,)))
            if source.mount is not None:
                point = _open(source, source.mount.mount_point, os.O_RDONLY | os.O_DIRECTORY)
                if mounts.mount_id(point) != source.mount.mount_id:
                    raise SnapshotError(
                        f"{source.mount.mount_point} shows another file system than that of {source.device}",
                        hint="unmount what hides it",
                    )
                targets.append(Target(point, source.mount.mount_point))
            elif source.pieces is not None:
                self._unmounted.append((source, _open(source, source.device, os.O_RDONLY)))
        self._freezer = Freezer(targets, actions)
        self._frozen = [target.fd for target in targets]
        self._freezer.start(deadline, flush=self._frozen)

    def take(self, deadline: Deadline, /) -> Taken:
        """See `Provider`."""
        freezer = self._freezer
        if freezer is None:
            raise UsageError("take() came before prepare()")
        if self._frozen:
            freezer.flush(deadline)
        for source, fd in self._unmounted:
            # What was written to a device lies in its cache, not in the file, until it is flushed.
            try:
                os.fsync(fd)
            except OSError as exc:
                raise _failed(source.device, "fsync", exc, "cannot be flushed") from exc
        instant = freezer.run(deadline)
        freezer.close()
        if instant.failed is not None:
            raise _clone_failed(list(self._sources.values())[instant.failed].backing, instant.code)
        self._taken = True
        for source in self._sources.values():
            length = os.fstat(source.clone).st_size
            if source.pieces is None:
                source.pieces = ((0, length),)
            end = max((offset + size for offset, size in source.pieces), default=0)
            if end > length:
                raise SnapshotError(
                    f"{source.backing} has {length} bytes, those up to {end} are needed",
                    hint="the file behind the loop device was cut; run losetup --set-capacity",
                )
        volumes = tuple(_volume(name, source) for name, source in self._order)
        return Taken(
            snapshot_id=str(uuid.uuid4()),
            created=_EPOCH + timedelta(microseconds=instant.nanoseconds // 1000),
            level=Consistency.CRASH
            if any(source.mount is None for source in self._sources.values())
            else Consistency.FILESYSTEM,
            volumes=volumes,
        )

    def open(self, volume: SnapshotVolume, /) -> BlockReader:
        """See `Provider`."""
        self.alive()
        source = next((source for _, source in self._order if source.device == volume.device), None)
        if source is None:
            raise UsageError(f"{volume.name} is not in this snapshot", hint="open one of its volumes")
        found = os.fstat(source.clone)
        try:
            # A description of its own: the walk over holes moves the file's cursor.
            fd = os.open(f"/proc/self/fd/{source.clone}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise _failed(f"the clone of {source.device}", "open", exc, "cannot be opened once more") from exc
        opened = Opened(
            fd,
            "file",
            found.st_size,
            volume.sector_size,
            source.backing,
            ("file", found.st_dev, found.st_ino),
        )
        return gathered(DeviceReader(opened), source.pieces or ())

    def alive(self) -> None:
        """See `Provider`; a clone that is open cannot be lost."""
        if not self._taken:
            raise SnapshotLostError("there is no clone: it was not taken, or released")

    def release(self, deadline: Deadline, /) -> None:
        """See `Provider`; with its last descriptor the clone is gone."""
        self._taken = False
        try:
            if self._freezer is not None:
                self._freezer.close()
        finally:
            self._freezer = None
            self._unmounted = []
            for source in self._sources.values():
                while source.fds:
                    os.close(source.fds.pop())


def _resolve(volume: object) -> _Source:
    """Find the file behind a volume; raises _CannotError."""
    if not isinstance(volume, str):
        raise _CannotError(f"{volume} is no path")
    try:
        found = os.stat(volume)
        mount: mounts.Mount | None = None
        device, rdev = volume, found.st_rdev
        if stat.S_ISREG(found.st_mode):
            return _Source(
                (found.st_dev, found.st_ino, -1), os.path.realpath(volume), os.path.realpath(volume)
            )
        if stat.S_ISDIR(found.st_mode):
            mount = mounts.containing(volume)
            if os.path.realpath(volume) != mount.mount_point:
                raise _CannotError(
                    f"{volume} is a folder in {mount.mount_point}, no volume; name the mount point or device"
                )
            device = mount.source
            if not _is_block_device(device):
                raise _CannotError(f"{volume} is {mount.filesystem} on {device}, which is no block device")
            rdev = os.stat(device).st_rdev
        elif not stat.S_ISBLK(found.st_mode):
            raise _CannotError(f"{volume} is neither a file, a block device nor a mount point")
        else:
            mount = next(iter(mounts.of_device(rdev)), None)
        loop = loops.find(device, rdev)
        behind = os.stat(loop.backing)
    except loops.NoLoopError as exc:
        raise _CannotError(str(exc)) from None
    except (OSError, ValueError) as exc:
        raise _CannotError(f"{volume}: {getattr(exc, 'strerror', None) or exc}") from exc
    return _Source(
        (behind.st_dev, behind.st_ino, loop.pieces[0][0]), os.path.realpath(device), loop.backing,
        loop.pieces, loop.sector_size, mount,
    )  # fmt: skip


def _is_block_device(path: str) -> bool:
    """Whether there is one of this name; what a file system calls its source may be no path."""
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _check_clone(path: str) -> None:
    """Whether the file system of a file clones; raises _CannotError."""
    folder = os.path.dirname(path) or "."
    where = mounts.containing(folder)
    fds: list[int] = []
    try:
        fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        fds += [os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600) for _ in range(2)]
        fcntl.ioctl(fds[1], FICLONE, fds[2])
    except OSError as exc:
        if exc.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EISDIR):
            raise _CannotError(
                f"{path} is on {where.filesystem} at {where.mount_point}, which cannot clone files;"
                " XFS (made with reflink=1) and btrfs can"
            ) from None
        raise _CannotError(f"{path} cannot be cloned in its folder: {exc.strerror}") from exc
    finally:
        for fd in fds:
            os.close(fd)


def _check_freeze(source: _Source, sources: Iterable[_Source]) -> None:
    """Whether freezing would stop what the snapshot itself needs; raises _CannotError."""
    if source.mount is None:
        return
    frozen = os.stat(source.mount.mount_point).st_dev
    for needed, what in _needed():
        if needed == frozen:
            raise _CannotError(f"{source.mount.mount_point} cannot be frozen: {what} is on it")
    for other in sources:
        if os.stat(other.backing).st_dev == frozen:
            raise _CannotError(
                f"{source.mount.mount_point} cannot be frozen: {other.backing}, to be cloned, is on it"
            )


def _needed() -> list[tuple[int, str]]:
    """The file systems that must not stand still, with the reason."""
    paths = {
        "/": "the system itself",
        sys.executable: "the Python interpreter",
        os.__file__: "the Python library",
        __file__: "this library",
        os.environ.get("TMPDIR", "/tmp"): "the folder for temporary files",  # noqa: S108 - only looked at
        ".": "the working folder",
        **{swap.path: "swap" for swap in mounts.swap_devices() if swap.kind == "file"},
    }
    found: list[tuple[int, str]] = []
    for path, what in paths.items():
        try:
            found.append((os.stat(path).st_dev, what))
        except OSError:
            continue
    for fd in range(3):
        try:
            shown = os.fstat(fd)
        except OSError:
            continue
        if stat.S_ISREG(shown.st_mode):
            found.append((shown.st_dev, "the output or log of this process"))
    return found


def _open(source: _Source, path: str, flags: int) -> int:
    try:
        fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    except PermissionError as exc:
        raise SnapshotPermissionError(
            f"{path} may not be opened by this user", call="open", code=exc.errno, hint="run as root"
        ) from exc
    except OSError as exc:
        raise _failed(path, "open", exc, "cannot be opened") from exc
    source.fds.append(fd)
    return fd


def _failed(what: str, call: str, exc: OSError, how: str) -> SnapshotError:
    hint = "look for errors of the device in the kernel's log"
    if exc.errno in (errno.EMFILE, errno.ENFILE):
        hint = "close readers, or raise the limit of open files (ulimit -n)"
    return SnapshotError(f"{what} {how}: {exc.strerror}", call=call, code=exc.errno, hint=hint)


def _clone_failed(path: str, code: int) -> SnapshotError:
    what = f"{path} cannot be cloned: {os.strerror(code)}"
    if code in (errno.ENOSPC, errno.EDQUOT):
        return InsufficientStorageError(
            what, call="ioctl(FICLONE)", code=code, hint="make room on its file system; a clone needs little"
        )
    if code in (errno.EPERM, errno.EACCES):
        return SnapshotPermissionError(
            what, call="ioctl(FICLONE)", code=code, hint="run as the file's owner or root"
        )
    hint = "files without copy-on-write (chattr +C) and swap files cannot be cloned"
    return SnapshotError(what, call="ioctl(FICLONE)", code=code, hint=hint if code == errno.EINVAL else "")


def _volume(name: str, source: _Source) -> SnapshotVolume:
    return SnapshotVolume(
        name=name,
        device=source.device,
        size=sum(length for _, length in source.pieces or ()),
        sector_size=source.sector_size,
        filesystem=source.mount.filesystem if source.mount is not None else "",
        mount_point=source.mount.mount_point if source.mount is not None else "",
    )
