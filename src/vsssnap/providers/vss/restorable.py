"""What a restore with writers is about: components, their files, and where these go."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from vsssnap._win32.constants import FileRestoreStatus
from vsssnap._win32.constants import RestoreTarget as _Target
from vsssnap.errors import SnapshotError, UsageError

if TYPE_CHECKING:
    from vsssnap._win32.restore_components import Directed, SavedComponent

__all__ = [
    "DirectedFile",
    "FileSet",
    "Placement",
    "RestorableComponent",
    "RestoreStatus",
    "RestoreTarget",
]

_MOST = (1 << 64) - 1  # offsets and lengths are numbers of 64 bits


class RestoreStatus(enum.Enum):
    """What became of the files of a component (VSS_FILE_RESTORE_STATUS)."""

    ALL = FileRestoreStatus.VSS_RS_ALL
    """All were restored."""
    NONE = FileRestoreStatus.VSS_RS_NONE
    """None was."""
    FAILED = FileRestoreStatus.VSS_RS_FAILED
    """Some were, and some were not."""


class RestoreTarget(enum.Enum):
    """Where a writer wants the files of a component (VSS_RESTORE_TARGET)."""

    UNDEFINED = _Target.VSS_RT_UNDEFINED
    """The writer made an error: do not restore it."""
    ORIGINAL = _Target.VSS_RT_ORIGINAL
    """As its metadata document says, by its restore method."""
    ALTERNATE = _Target.VSS_RT_ALTERNATE
    """To the alternate locations in its metadata document."""
    DIRECTED = _Target.VSS_RT_DIRECTED
    """Piece by piece, as `Placement.directed` says."""
    ORIGINAL_LOCATION = _Target.VSS_RT_ORIGINAL_LOCATION
    """To where they were, whatever its restore method is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorableComponent:
    """A component that was named in a backup.

    Attributes:
        writer_id: Class id of its writer.
        instance_id: The writer's instance at the time of the backup.
        path: Logical path and name.
        succeeded: Whether its backup was said to have succeeded.
        running: Whether its writer runs now; without it the component cannot be selected.
    """

    writer_id: str
    instance_id: str
    path: str
    succeeded: bool
    running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSet:
    r"""Files of a component, exactly as its writer's metadata document has them.

    Attributes:
        path: Their folder, with environment variables in it (``"%SystemRoot%\\sql"``).
        spec: Their names, with wildcards.
        recursive: Whether folders below belong to it.
    """

    path: str
    spec: str = "*"
    recursive: bool = False

    def __post_init__(self) -> None:
        path, spec, recursive = (cast("object", one) for one in (self.path, self.spec, self.recursive))
        good = isinstance(path, str) and isinstance(spec, str) and isinstance(recursive, bool)
        if not good or "\0" in self.path + self.spec:
            raise UsageError(f"no files: {self.path!r}, {self.spec!r}, {self.recursive!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectedFile:
    """Pieces of a file that go into a file, perhaps another one.

    Attributes:
        path: The folder of the file that was backed up.
        name: Its name.
        ranges: Offset and length of each piece, in bytes.
        to_path: The folder of the file that they go to.
        to_name: Its name.
        to_ranges: Offset and length of each there; as many, and each as long.
    """

    path: str
    name: str
    ranges: tuple[tuple[int, int], ...]
    to_path: str
    to_name: str
    to_ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a writer wants the files of a component.

    Attributes:
        target: How its files are restored.
        directed: If that is DIRECTED, which of them go where.
    """

    target: RestoreTarget
    directed: tuple[DirectedFile, ...] = ()


def placement(saved: SavedComponent) -> Placement:
    """What a writer left in the document.

    Raises:
        SnapshotError: it cannot be read.
    """
    return Placement(
        target=RestoreTarget(saved.target),
        directed=tuple(_directed(saved.name, one) for one in saved.directed),
    )


def _directed(component: str, known: Directed) -> DirectedFile:
    ranges, to_ranges = _ranges(known.ranges), _ranges(known.new_ranges)
    if ranges is None or to_ranges is None or [n for _, n in ranges] != [n for _, n in to_ranges]:
        there = known.new_ranges[:80]
        raise SnapshotError(
            f"{component}: its writer wants {known.ranges[:80]!r} of {known.name} at {there!r}",
            call="GetDirectedTarget",
            hint="its writer made an error: restore the whole component with the application's own tools",
        )
    return DirectedFile(
        path=known.folder,
        name=known.name,
        ranges=ranges,
        to_path=known.new_folder,
        to_name=known.new_name,
        to_ranges=to_ranges,
    )


def _ranges(text: str) -> tuple[tuple[int, int], ...] | None:
    """``"offset:length, ..."``, decimal or hexadecimal (IVssComponent::AddDirectedTarget, remarks)."""
    found = []
    for part in text.split(","):
        pieces = [_number(piece.strip()) for piece in part.split(":")]
        if len(pieces) != 2 or pieces[0] is None or pieces[1] is None:
            return None
        found.append((pieces[0], pieces[1]))
    return tuple(found)


def _number(text: str) -> int | None:
    digits = text[2:] if text[:2].lower() == "0x" else text
    base = 16 if digits is not text else 10
    if not digits.isascii() or not digits.isalnum() or len(digits) > 20:
        return None
    try:
        value = int(digits, base)
    except ValueError:
        return None
    return value if value <= _MOST else None
