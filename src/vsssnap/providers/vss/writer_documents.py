"""Writers' metadata documents of earlier backups: which files, and how they are put back."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap._deadline import Deadline
from vsssnap._win32 import writer_documents
from vsssnap._win32.constants import RestoreMethod as _Method
from vsssnap._win32.constants import WriterRestore as _Called
from vsssnap.providers.vss.components import full_path
from vsssnap.providers.vss.management import run
from vsssnap.providers.vss.options import document_text
from vsssnap.providers.vss.restorable import FileSet

if TYPE_CHECKING:
    from vsssnap._win32 import writer_metadata
    from vsssnap._win32.dll import System

__all__ = [
    "AlternateLocation",
    "DocumentedComponent",
    "RestoreMethod",
    "WriterDocument",
    "read_writer_document",
]


class RestoreMethod(enum.Enum):
    """How files of a writer are put back (VSS_RESTOREMETHOD_ENUM)."""

    UNDEFINED = _Method.VSS_RME_UNDEFINED
    """The writer made an error."""
    IF_NOT_THERE = _Method.VSS_RME_RESTORE_IF_NOT_THERE
    """Where they were, if none of them is there; else at their alternate locations."""
    IF_CAN_REPLACE = _Method.VSS_RME_RESTORE_IF_CAN_REPLACE
    """Where they were, if all that are there can be replaced; else at their alternate locations."""
    STOP_RESTORE_START = _Method.VSS_RME_STOP_RESTORE_START
    """Where they were, while a service is stopped."""
    TO_ALTERNATE_LOCATION = _Method.VSS_RME_RESTORE_TO_ALTERNATE_LOCATION
    """At their alternate locations."""
    AT_REBOOT = _Method.VSS_RME_RESTORE_AT_REBOOT
    """Where they were, at the next start of Windows."""
    AT_REBOOT_IF_CANNOT_REPLACE = _Method.VSS_RME_RESTORE_AT_REBOOT_IF_CANNOT_REPLACE
    """Where they were; what cannot be replaced, at the next start of Windows."""
    CUSTOM = _Method.VSS_RME_CUSTOM
    """By the application's own means."""
    RESTORE_STOP_START = _Method.VSS_RME_RESTORE_STOP_START
    """Where they were; then a service is restarted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlternateLocation:
    """A folder that files may be put into if they cannot be put back where they were.

    Attributes:
        files: Which.
        to: The folder.
    """

    files: FileSet
    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentedComponent:
    """A component as its writer described it.

    Attributes:
        path: Logical path and name.
        caption: What it is called for people, or "".
        selectable: Whether it can be chosen for a backup by itself.
        selectable_for_restore: Likewise for a restore.
        files: Its files; what `WriterRestore.redirect` takes.
    """

    path: str
    caption: str
    selectable: bool
    selectable_for_restore: bool
    files: tuple[FileSet, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterDocument:
    """What a writer said of itself when it was backed up.

    Attributes:
        name: Its name.
        writer_id: Its class id.
        instance_id: Its instance then.
        components: What it had to back up.
        method: How its files are put back, unless it says otherwise then (`WriterRestore.placement`).
        takes_part: Whether it has to run and take part: ``"always"``, ``"never"``, or ``"if replace fails"``
            for when files cannot be put back where they were.
        service: The service that is stopped or restarted for that, or "".
        instructions: What people have to do besides (a page or a file), or "".
        reboot: Whether Windows has to be restarted afterwards.
        alternate_locations: Where else files may be put.
        excluded: Files of the components that were not to be backed up.
    """

    name: str
    writer_id: str
    instance_id: str
    components: tuple[DocumentedComponent, ...]
    method: RestoreMethod
    takes_part: str
    service: str
    instructions: str
    reboot: bool
    alternate_locations: tuple[AlternateLocation, ...]
    excluded: tuple[FileSet, ...]


_TAKES_PART = {
    _Called.VSS_WRE_ALWAYS: "always",
    _Called.VSS_WRE_IF_REPLACE_FAILS: "if replace fails",
    _Called.VSS_WRE_NEVER: "never",
    _Called.VSS_WRE_UNDEFINED: "always",  # the safe answer to what nobody said
}


def read_writer_document(document: bytes | str, /, *, timeout: float = 60.0) -> WriterDocument:
    """Read a writer's metadata document of an earlier backup; VSS itself does that.

    Args:
        document: It (``metadata.documents["vss/writers/....xml"]``).
        timeout: Seconds.

    Raises:
        UsageError: ``document`` is no text.
        ProviderUnavailableError: VSS is not here.
        SnapshotPermissionError: the process is not elevated.
        SnapshotError: it is none of a writer.
    """
    text = document_text(document)
    found: list[WriterDocument] = []

    def ask(system: System) -> None:
        found.append(_shown(writer_documents.load(system, text)))

    run(ask, Deadline(timeout), "read a writer's metadata document")
    return found[0]


def _shown(known: writer_documents.Document) -> WriterDocument:
    writer = known.writer
    return WriterDocument(
        name=writer.name,
        writer_id=str(writer.writer_id),
        instance_id=str(writer.instance_id),
        components=tuple(
            DocumentedComponent(
                path=full_path(one),
                caption=one.caption,
                selectable=one.selectable,
                selectable_for_restore=one.selectable_for_restore,
                files=tuple(map(_files, one.files)),
            )
            for one in writer.components
        ),
        method=RestoreMethod(known.method),
        takes_part=_TAKES_PART[known.called],
        service=known.service,
        instructions=known.procedure,
        reboot=known.reboot,
        alternate_locations=tuple(
            AlternateLocation(files=_files(one), to=one.alternate) for one in known.mappings
        ),
        excluded=tuple(map(_files, known.excluded)),
    )


def _files(known: writer_metadata.FileSet) -> FileSet:
    return FileSet(path=known.path, spec=known.spec, recursive=known.recursive)
