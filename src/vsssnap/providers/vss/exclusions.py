r"""Files of a shadow copy that an image need not hold, as Windows itself names them.

Beside the files that always have the same names those of the registry: page files wherever they
are, and FilesNotToSnapshot, what applications can do without (caches, memory dumps, temporary files).
Where they lie is asked of the shadow copy.  What cannot be found or asked is kept.

Sources: "Registry Keys and Values for Backup and Restore" (FilesNotToSnapshot: wildcards in the last
part, ``/s`` for folders below, ``$UserProfile$``, ``$AllVolumes$``, environment variables), "Memory
Management Registry Keys" (ExistingPageFiles); Windows SDK documentation.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap._win32 import listing, registry
from vsssnap._win32.constants import Win32Error
from vsssnap._win32.devices import RawDevice
from vsssnap._win32.handles import WindowsCallError
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.providers.base import LeftOut
from vsssnap.providers.vss import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from vsssnap._deadline import Deadline
    from vsssnap._win32.devices import Clusters
    from vsssnap._win32.dll import System
    from vsssnap._win32.writer_metadata import FileSet

_log = logging.getLogger("vsssnap.vss")

_MEMORY = r"SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management"
_NOT_TO_SNAPSHOT = r"SYSTEM\CurrentControlSet\Control\BackupRestore\FilesNotToSnapshot"
_PROFILES = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion\ProfileList"
_STORAGE = "{3808876b-c176-4e48-b7ae-04046e6cc752}"
_MOST_FILES = 100_000  # of one volume, and
_MOST_PIECES = 1_000_000  # runs of clusters of them
_DEEP = 64  # folders in one another
_MOST_NAMED = 10  # files of a component that a note names
_VARIABLE = re.compile(r"%([^%\\]+)%")


class _Enough(Exception):
    """More is not looked for; what was found by then is left out."""


@dataclass(frozen=True, slots=True)
class _Owned:
    """Files of a component, on the volume."""

    owner: str
    folder: str  # lower case, with a backslash at its end
    name: re.Pattern[str]
    recursive: bool

    def holds(self, path: str) -> bool:
        folder, _, name = path.rpartition("\\")
        folder = folder.lower() + "\\"
        there = folder.startswith(self.folder) if self.recursive else folder == self.folder
        return there and self.name.fullmatch(name) is not None


class Finder:
    """Looks for files on one shadow copy."""

    def __init__(
        self,
        system: System,
        device: str,
        volume: str,
        *,
        deadline: Deadline,
        owners: Iterable[tuple[str, FileSet]] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Describe it.

        Args:
            system: The libraries.
            device: The shadow copy, without a backslash at its end.
            volume: GUID path of its volume.
            deadline: Until when files are looked for; what was not found by then is kept.
            owners: Files that components of the backup have, by the component's name: such a one that
                is left out is told of.
            environment: Variables for patterns; by default those of this process.
        """
        self._system = system
        self._device = device
        self._environment = {
            name.upper(): value
            for name, value in (os.environ if environment is None else environment).items()
        }
        self._roots = names.mounted(system, volume)
        self._deadline = deadline
        self._owned = list(self._owned_here(owners))
        self._files = self._pieces = 0
        self._gone: list[str] = []

    def _owned_here(self, owners: Iterable[tuple[str, FileSet]]) -> Iterator[_Owned]:
        for owner, files in owners:
            inside = self._inside(self._filled(files.alternate or files.path).rstrip("\\") + "\\")
            if inside is not None:
                yield _Owned(owner, inside.lower(), _pattern(files.spec or "*"), files.recursive)

    def find(self, kinds: frozenset[str]) -> tuple[LeftOut, ...]:
        """The files of some kinds, each a value of `vsssnap.Exclusion`."""
        try:
            raw = RawDevice(self._system, self._device)
        except WindowsCallError as exc:
            _log.info("%s: its files are not looked for: %s", self._device, exc)
            return ()
        found: list[LeftOut] = []
        try:
            clusters, size, sector_size = raw.clusters(), raw.length(), raw.sector_size()
            for kind, path, files in self._wanted(kinds):
                extents = self._extents(files, clusters, size)
                if kind == "hibernation" and extents and _holds_system(raw, extents[0].offset, sector_size):
                    _log.info("%s holds a hibernated system and is kept", path)
                elif extents:
                    extents.sort(key=lambda extent: extent.offset)
                    notes = self._lacking(path) if kind == "not-in-snapshot" else ()
                    found.append(LeftOut(kind=kind, path=path, extents=tuple(extents), notes=notes))
        except _Enough:
            _log.warning("%s: more files could be left out than are looked for", self._device)
        except WindowsCallError as exc:
            _log.info("%s: its files are not looked for: %s", self._device, exc)
        finally:
            raw.close()
        return tuple(found)

    def _lacking(self, line: str) -> tuple[str, ...]:
        """What to tell of components whose files a line of FilesNotToSnapshot has left out."""
        owned: dict[str, list[str]] = {}
        for path in self._gone if self._owned else ():
            for owner in {each.owner for each in self._owned if each.holds(path)}:
                owned.setdefault(owner, []).append(path)
        notes = []
        for owner, paths in sorted(owned.items()):
            more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
            notes.append(
                f"{owner} is without {', '.join(paths[:_MOST_NAMED])}{more} (FilesNotToSnapshot: {line})."
            )
            _log.warning("%s", notes[-1])
        return tuple(notes)

    def _wanted(self, kinds: frozenset[str]) -> Iterator[tuple[str, str, Iterator[str]]]:
        """Kind, what the metadata say, and the files, by their paths on the volume."""
        if "page-file" in kinds:
            named = self._lines(_MEMORY).get("ExistingPageFiles", [])
            paths = [
                inside for line in named if (inside := self._inside(line.removeprefix("\\??\\"))) is not None
            ]
            for path in dict.fromkeys(["\\pagefile.sys", *paths]):
                yield "page-file", path, iter((path,))
        for kind, path in (("swap-file", "\\swapfile.sys"), ("hibernation", "\\hiberfil.sys")):
            if kind in kinds:
                yield kind, path, iter((path,))
        if "shadow-storage" in kinds:
            folder = "\\System Volume Information"
            for entry in self._entries(folder):
                if entry.name.lower().endswith(_STORAGE) and not entry.is_folder:
                    yield "shadow-storage", f"{folder}\\{entry.name}", iter((f"{folder}\\{entry.name}",))
        if "not-in-snapshot" in kinds:
            for lines in self._lines(_NOT_TO_SNAPSHOT).values():
                for line in lines:
                    yield "not-in-snapshot", line, self._matching(line)

    def _lines(self, key: str) -> dict[str, list[str]]:
        try:
            return registry.texts(self._system, key)
        except WindowsCallError as exc:
            _log.info("%s", exc)
            return {}

    def _inside(self, path: str) -> str | None:
        """A path of this machine as one on the volume, or None if it lies on another."""
        for root in sorted(self._roots, key=len, reverse=True):
            if path.lower().startswith(root.lower()):
                return "\\" + path[len(root) :]
        return None

    # Patterns.

    def _matching(self, line: str) -> Iterator[str]:
        """The files of a line of FilesNotToSnapshot."""
        text = line.strip()
        recursive = text.lower().endswith(" /s")
        text = text[:-3].rstrip() if recursive else text
        for path in self._expanded(text):
            folder, _, name = path.rpartition("\\")
            if not name or "*" in folder or "?" in folder:
                _log.info("FilesNotToSnapshot: %r is not understood", line)
                continue
            yield from self._walk(folder, _pattern(name), _DEEP if recursive else 0)

    def _expanded(self, text: str) -> Iterator[str]:
        """A pattern as paths on the volume."""
        lower = text.lower()
        if lower.startswith("$allvolumes$"):
            yield "\\" + text[len("$allvolumes$") :].lstrip("\\")
        elif lower.startswith("$userprofile$"):
            for profile in self._profiles():
                yield profile + "\\" + text[len("$userprofile$") :].lstrip("\\")
        elif text.startswith("\\") and not text.startswith("\\\\"):
            yield text
        else:
            path = self._inside(self._filled(text))
            if path is not None:
                yield path

    def _filled(self, text: str) -> str:
        """With environment variables put in; an unknown one stays."""
        return _VARIABLE.sub(lambda found: self._environment.get(found[1].upper(), found[0]), text)

    def _profiles(self) -> Iterator[str]:
        """The folders of users on the volume."""
        for line in self._lines(_PROFILES).get("ProfilesDirectory", []):
            folder = self._inside(self._filled(line))
            if folder is not None:
                folder = folder.rstrip("\\")
                for entry in self._entries(folder):
                    if entry.is_folder and not entry.is_link:
                        yield f"{folder}\\{entry.name}"

    def _walk(self, folder: str, pattern: re.Pattern[str], deep: int) -> Iterator[str]:
        for entry in self._entries(folder):
            path = f"{folder}\\{entry.name}"
            if entry.is_link:
                continue
            if entry.is_folder:
                if deep:
                    yield from self._walk(path, pattern, deep - 1)
            elif pattern.fullmatch(entry.name):
                yield path

    def _entries(self, folder: str) -> Iterator[listing.Entry]:
        try:
            for entry in listing.entries(self._system, self._device + folder):
                self._go_on()
                yield entry
        except WindowsCallError as exc:
            _log.info("%s is not looked into: %s", folder, exc)

    def _go_on(self) -> None:
        if self._deadline.cancelled or not self._deadline.left():
            raise _Enough

    # Where they lie.

    def _extents(self, files: Iterator[str], clusters: Clusters, size: int) -> list[Extent]:
        """Pieces of files, each file's from its first byte to its last."""
        found: list[Extent] = []
        self._gone = []
        for path in files:
            self._go_on()
            try:
                links, runs = listing.clusters_of(self._system, self._device + path)
            except WindowsCallError as exc:
                if exc.code not in (Win32Error.ERROR_FILE_NOT_FOUND, Win32Error.ERROR_PATH_NOT_FOUND):
                    _log.info("%s is kept: %s", path, exc)
                continue
            placed = [(clusters.base + lcn * clusters.size, count * clusters.size) for lcn, count in runs]
            # A file with several names is wanted under the others.
            if links > 1 or any(at + length > size for at, length in placed):
                _log.info("%s is kept: it has %d names, or ends behind the volume", path, links)
                continue
            self._files += 1
            self._pieces += len(placed)
            if self._files > _MOST_FILES or self._pieces > _MOST_PIECES:
                raise _Enough
            found += [Extent(at, length, ExtentKind.EXCLUDED) for at, length in placed]
            if placed:
                self._gone.append(path)
        return found


def _pattern(name: str) -> re.Pattern[str]:
    """A name with wildcards; ``*.*`` is every name, also one without a dot."""
    return re.compile(fnmatch.translate("*" if name == "*.*" else name.replace("[", "[[]")), re.IGNORECASE)


def _holds_system(device: RawDevice, offset: int, sector_size: int) -> bool:
    """Whether a hibernation file holds a system: anything but zeros or the mark of one that woke up."""
    head = bytearray(4096)
    with memoryview(head) as view:
        device.read_into(view, offset, sector_size)
    return any(head) and head[:4].lower() != b"wake"
