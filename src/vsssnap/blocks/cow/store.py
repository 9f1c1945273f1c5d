"""Shadow storage: where the originals of one snapshot are kept.

An unnamed sparse file as long as the volume; the original of a block lies at the block's own
offset, and an original of all zeros is a bit and no bytes.  So the index is two bits a block
however many blocks are saved, and the file system does the allocation.

Python has no call that punches holes, so space returns when the file is emptied: a store
belongs to one snapshot, and goes as a whole.
"""

from __future__ import annotations

import errno
import os
import sys

from vsssnap import _files
from vsssnap.blocks.cow.bitmap import Bitmap
from vsssnap.errors import (
    DeviceReadError,
    InsufficientStorageError,
    SnapshotError,
    SnapshotPermissionError,
    TargetError,
)

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

# What a file system may add to st_blocks for its own bookkeeping of a sparse file (ext4 extent
# leaves, XFS bmap btree): at most 32 bytes an extent when every node is half full, and the
# first nodes of the tree.
BLOCK_OVERHEAD = 64
STORE_OVERHEAD = 16 << 10


class ShadowStore:
    """The originals that were saved while a snapshot was the newest one.

    The file is used by `read_into`, `write`, `measure` and `empty` between a pin and an unpin of the
    chain, whose lock guards everything else.

    Attributes:
        folder: Where the file lies, for messages.
        saved: Blocks whose original is kept here.
        zero: Those of them that were all zero.
        living: Whether a snapshot reads from here; a store may outlive its snapshot, for older ones.
        lost: Why its snapshot is lost, or "".
        charged: Bytes on disk that were budgeted for it.
        measured: Bytes on disk that it was last seen to take.
        pins: Uses of the file that run; the last one of a dropped store closes it.
        dropped: Whether it has left the chain.
        emptied: Whether its disk space was given back since.
    """

    __slots__ = (
        "_fd",
        "_pid",
        "charged",
        "dropped",
        "emptied",
        "folder",
        "living",
        "lost",
        "measured",
        "pins",
        "saved",
        "zero",
    )

    def __init__(self, folder: str, size: int) -> None:
        """Create the file.

        Raises:
            SnapshotError: it cannot be created; the subclass says what to do.
        """
        self._fd = _create(folder, size)
        self._pid = os.getpid()
        self.folder = folder
        self.saved = Bitmap()
        self.zero = Bitmap()
        self.living = False  # until it is in the chain
        self.lost = ""
        self.charged = 0
        self.measured = 0
        self.pins = 0
        self.dropped = False
        self.emptied = False

    @property
    def usage(self) -> int:
        """Bytes on disk to account for."""
        return max(self.charged, self.measured)

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of ``data``.

        Raises:
            OSError: with ``errno`` in `NO_ROOM` when the disk is full.
            TargetError: the file failed otherwise.
        """
        while data:
            try:
                count = _files.pwrite(self._fd, data, offset)
            except OSError as exc:
                if exc.errno in NO_ROOM:
                    raise
                raise TargetError(
                    f"shadow storage in {self.folder} cannot be written: {exc.strerror}, {len(data)} bytes"
                    f" at {offset}",
                    path=self.folder,
                    call="pwrite",
                    code=exc.errno,
                    hint="check that disk, or name another shadow_folder=",
                ) from exc
            data = data[count:]
            offset += count

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` with saved originals.

        Raises:
            DeviceReadError: the file failed, or was emptied meanwhile.
        """
        wanted, code, problem = len(view), None, "it was emptied"
        while view:
            try:
                count = _files.preadinto(self._fd, view, offset)
            except OSError as exc:
                count, code, problem = 0, exc.errno, str(exc.strerror)
            if not count:
                raise DeviceReadError(
                    f"shadow storage in {self.folder} cannot be read: {problem},"
                    f" {len(view)} bytes at {offset}",
                    offset=offset,
                    length=wanted,
                    call="pread",
                    code=code,
                    hint="check that disk; the snapshot cannot be read there",
                )
            view = view[count:]
            offset += count

    def measure(self) -> int:
        """Bytes that the file takes on disk now."""
        if sys.platform != "win32":
            return os.fstat(self._fd).st_blocks * 512
        else:  # noqa: RET505 - so that mypy follows the platform; there is no store to measure here
            return 0

    def empty(self) -> None:
        """Give the disk space back now, even while others still use the file."""
        # After a fork the child shares the file; only the parent may touch what it holds.
        if os.getpid() == self._pid:
            try:
                os.ftruncate(self._fd, 0)
            except OSError:
                return  # closing the file gives the space back too

    def close(self) -> None:
        """Close the file.  Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _create(folder: str, size: int) -> int:
    """An unnamed file of ``size`` zeros that takes no space, mode 0600."""
    fd = -1
    call = "open"
    try:
        fd = _unnamed(folder)
        call = "ftruncate"
        # At its full length from the start: XFS would preallocate behind the end of a growing file.
        os.ftruncate(fd, size)
    except OSError as exc:
        if fd >= 0:
            os.close(fd)
        kind, hint = SnapshotError, "name another shadow_folder="
        if exc.errno in NO_ROOM:
            kind, hint = InsufficientStorageError, "free some space there, or name another shadow_folder="
        elif isinstance(exc, PermissionError) or exc.errno == errno.EROFS:
            kind, hint = SnapshotPermissionError, "name a shadow_folder= that this process may write"
        elif exc.errno == errno.EFBIG:
            hint = "name a shadow_folder= on a file system with larger files (XFS, btrfs)"
        elif exc.errno in (errno.EMFILE, errno.ENFILE):
            hint = "close snapshots, or raise the limit of open files (ulimit -n)"
        raise kind(
            f"shadow storage of {size} bytes (sparse) cannot be made in {folder}: {exc.strerror}",
            call=call,
            code=exc.errno,
            hint=hint,
        ) from exc
    return fd


if sys.platform == "win32":

    def sparse_problem() -> str:
        """Why shadow storage cannot be kept on this system, or ""."""
        return "shadow storage needs a sparse file, which is made on POSIX systems only"

    def _unnamed(folder: str) -> int:
        raise SnapshotError(sparse_problem(), hint="use Snapshot with the volume's drive letter (VSS)")

else:

    def sparse_problem() -> str:
        """Why shadow storage cannot be kept on this system, or ""."""
        return ""

    def _unnamed(folder: str) -> int:
        flags = getattr(os, "O_TMPFILE", 0)
        if flags:
            try:
                # O_EXCL: nobody can give it a name later (open(2), linkat(2)).
                return os.open(folder, os.O_RDWR | flags | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except OSError as exc:
                if exc.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                    raise
        import tempfile  # here, because it is slow to import and seldom needed

        fd, path = tempfile.mkstemp(prefix=".vsssnap-", suffix=".cow", dir=folder)  # mode 0600
        try:
            os.unlink(path)
        except BaseException:
            os.close(fd)
            raise
        return fd
