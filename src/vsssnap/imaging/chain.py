"""Open an image with all that lies behind it.

Parents are opened by a loop, not from within their children, so a chain may be longer than the
stack is deep.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vsssnap.errors import (
    CorruptImageError,
    DeviceReadError,
    ImageError,
    ImageNotFoundError,
    SnapshotPermissionError,
    UnsupportedFeatureError,
)
from vsssnap.formats import registry
from vsssnap.formats._storages import owning
from vsssnap.formats.base import SIDECAR_SUFFIX, ImageFormat, ImageReader, Probe
from vsssnap.formats.storage import FileStorage, Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PROBED = 64 << 10  # bytes of head and tail that formats see
# Without O_NONBLOCK the open of a FIFO, which an image may name as its parent, would wait for a writer.
_FLAGS = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_CLOEXEC", "O_BINARY", "O_NONBLOCK", "O_NOCTTY")
)
_MAX_CHAIN = 4096  # images behind one another
_MAX_ASKED = 64  # of them those with side-cars, each of which is a call deeper


def open_chain(path: str, name: str | None, *, recover: bool, where: Sequence[str] = ()) -> ImageReader:
    """Open an image, its parents and their side-cars; see `open_image`.

    Args:
        path: The image.
        name: Of its format, or None.
        recover: As of `open_image`.
        where: Files that are parents, and folders that hold some.
    """
    for given in where:
        if not os.path.exists(given):
            raise ImageNotFoundError(f"there is no parent {given}", path=given, hint="check the name")
    opening = _Opening(recover, where)
    reader = opening.open(path, name, ())
    try:
        opening.finish()
    except BaseException:
        reader.close()
        raise
    return reader


class _Opening:
    """One image with all that lies behind it."""

    def __init__(self, recover: bool, where: Sequence[str]) -> None:
        self._recover = recover
        self._folders = [path for path in where if os.path.isdir(path)]
        self.named = [os.path.abspath(path) for path in where if path not in self._folders]
        self.tasks: deque[tuple[str, Callable[[], None]]] = deque()

    def open(self, path: str, name: str | None, children: tuple[_Child, ...]) -> ImageReader:
        """Open one image; its parent may be left to `finish`."""
        storage = open_storage(path)
        with owning(storage):
            driver = find_format(storage, path, name)
            child = _Child(*storage.identity())
        resolve = _Resolver(self, path, (*children, child))
        try:
            reader = driver.open(storage, resolve_parent=resolve, recover=self._recover)
        except ImageError as exc:
            exc.path = exc.path or path
            raise
        reader.path = path
        try:
            _attach_sidecar(reader, path, self._recover)
        except BaseException:
            reader.close()
            raise
        child.asked = reader.sidecar is not None
        return reader

    def finish(self) -> None:
        """Do what was put off, and what is put off meanwhile: one parent after the other."""
        while self.tasks:
            path, task = self.tasks.popleft()
            try:
                task()
            except ImageError as exc:
                exc.path = exc.path or path
                raise

    def places(self, child: str, candidates: Sequence[str]) -> list[str]:
        """Where a parent of one of some names may be, the likeliest first."""
        # A child that was opened by a link lies where the link leads to, and so do its parents.
        folders = [os.path.dirname(child), os.path.dirname(os.path.realpath(child))]
        if os.path.realpath(folders[0]) == folders[1]:
            del folders[1]
        # What lies beside the child may have come there since its parents were moved.
        moved = [
            os.path.join(folder, os.path.basename(candidate.replace("\\", "/")))
            for folder in self._folders
            for candidate in candidates
        ]
        beside = [os.path.join(folder, candidate) for candidate in candidates for folder in folders]
        return list(dict.fromkeys(moved + beside))

    def open_parent(
        self,
        child: str,
        candidates: Sequence[str],
        format: str | None,
        chain: tuple[_Child, ...],
        whose: str = "its",
    ) -> ImageReader:
        """Open the first of some files, seen from its child; ``whose`` parent it is, for messages."""
        if len(chain) > _MAX_CHAIN:
            raise CorruptImageError(f"{child}: more than {_MAX_CHAIN} parents behind one another", path=child)
        tried = self.places(child, candidates)
        circle = ""
        for path in tried:
            found = _Child.of(path)
            if found is None:
                continue
            if found in chain:
                circle = circle or path
                continue
            try:
                if sum(image.asked for image in chain) <= _MAX_ASKED:
                    return self.open(path, format, chain)
            except RecursionError:  # of a format that does not put off its parents
                pass
            raise UnsupportedFeatureError(
                f"{child}: too many parents behind one another",
                path=child,
                feature="long chain",
                hint="merge some of them, or take away their side-cars",
            )
        if circle:
            raise CorruptImageError(f"{child}: its parent {circle} is its own descendant", path=child)
        raise ImageNotFoundError(
            f"{child}: {whose} parent is not there (looked for {', '.join(tried) or 'no name at all'}"
            + (f"; not {' or '.join(self.named)})" if self.named else ")"),
            path=child,
            hint="put the parent beside it, or name it with parent=",
        )


@dataclass(slots=True)
class _Child:
    """A file that is being opened with its parents.

    Attributes:
        device: Its file system.
        number: Its inode.
        asked: Whether its children ask it as a whole, so that each is a call deeper.
    """

    device: int
    number: int
    asked: bool = field(default=False, compare=False)

    @classmethod
    def of(cls, path: str) -> _Child | None:
        """The file of a path, if there is one."""
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return None
        return cls(found.st_dev, found.st_ino)


class _Resolver:
    """The `ResolveParent` of one image."""

    def __init__(self, opening: _Opening, path: str, chain: tuple[_Child, ...], whose: str = "its") -> None:
        self._opening = opening
        self._path = path
        self._chain = chain
        self._whose = whose

    def __call__(self, candidates: Sequence[str], /, *, format: str | None = None) -> ImageReader:
        """See `ResolveParent`."""
        return self._opening.open_parent(self._path, candidates, format, self._chain, self._whose)

    def behind(self, ancestor: str) -> _Resolver:
        """The same search for the parent of an ancestor, by whose name messages then call it."""
        return _Resolver(self._opening, self._path, self._chain, f"{ancestor}'s")

    @property
    def named(self) -> Sequence[str]:
        """Files that the user says are parents, but for this image and its children."""
        return [path for path in self._opening.named if _Child.of(path) not in self._chain]

    def places(self, candidates: Sequence[str]) -> list[str]:
        """Files that may be parents, for whoever must not touch one before it is opened."""
        found = [*self._opening.places(self._path, candidates), *self.named]
        return [path for path in found if os.path.isfile(path)]

    def later(self, task: Callable[[], None]) -> None:
        """Do this when the image is open, so that a chain may be longer than the stack is deep."""
        self._opening.tasks.append((self._path, task))


def open_storage(path: str) -> FileStorage:
    """Open an image's file for reading.

    Raises:
        ImageNotFoundError: there is none.
        SnapshotPermissionError: the process may not read it.
        ImageError: it is no regular file.
    """
    try:
        fd = os.open(path, _FLAGS)
    except FileNotFoundError as exc:
        raise ImageNotFoundError(
            f"there is no image {path}", path=path, call="open", code=exc.errno, hint="check the name"
        ) from None
    except PermissionError as exc:
        if os.path.isdir(path):  # Windows opens no folder
            raise _folder(path) from None
        raise SnapshotPermissionError(
            f"{path} may not be read by this user",
            call="open",
            code=exc.errno,
            hint="change its mode or user",
        ) from None
    except OSError as exc:
        raise ImageError(
            f"{path} cannot be opened: {exc.strerror}",
            path=path,
            call="open",
            code=exc.errno,
            hint="name an image",
        ) from exc
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return FileStorage(fd, path)
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise _folder(path)
    if stat.S_ISBLK(mode):
        raise ImageError(
            f"{path} is a block device, no image", path=path, hint="open devices with open_device"
        )
    raise ImageError(f"{path} is no regular file", path=path, hint="name an image's file")


def _folder(path: str) -> ImageError:
    return ImageError(
        f"{path} is a folder, no image",
        path=path,
        hint="name an image's file; what is mounted is read through a Snapshot",
    )


def find_format(storage: Storage, path: str, name: str | None) -> ImageFormat:
    """The named format, or the one that recognises the file."""
    if name is not None:
        return registry.by_name(name)
    size = storage.size
    head = _glance(storage, min(size, _PROBED), 0)
    tail = _glance(storage, min(size, _PROBED), max(0, size - _PROBED))
    return registry.by_probe(Probe(head, tail, os.path.basename(path), size), path)


def _glance(storage: Storage, length: int, offset: int) -> bytes:
    """Bytes for the probes; none if they cannot be read: a format may do without its other end."""
    try:
        return storage.pread(length, offset)
    except DeviceReadError:
        return b""


def _attach_sidecar(reader: ImageReader, path: str, recover: bool) -> None:
    beside = path + SIDECAR_SUFFIX
    if not os.path.isfile(beside):
        return
    from vsssnap.formats.raw import RawReader
    from vsssnap.formats.sidecar import SidecarReader  # for the images that have one

    try:
        sidecar = SidecarReader.open(open_storage(beside))
        if recover and isinstance(reader, RawReader):
            reader.lengthen(sidecar.size)
        reader.attach(sidecar)
    except CorruptImageError as exc:
        exc.path = beside
        if not recover:
            exc.hint = (
                exc.hint or "remove the side-car to use the image without checksums, or pass recover=True"
            )
            raise
