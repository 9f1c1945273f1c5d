"""Backups that continue others: stamps and options of components.

A writer leaves a stamp of its own with each component of a backup, and gets it back from whoever backs up
what changed since; nobody else can read it.

Sources: "Requester Role in VSS Incremental and Differential Backups", the pages of
IVssBackupComponents::SetPreviousBackupStamp and IVssComponent::GetBackupStamp; Windows SDK documentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap._win32.constants import BackupSchema, BackupType
from vsssnap._win32.restore_components import RestoreComponents
from vsssnap.providers.vss.components import full_path
from vsssnap.providers.vss.options import BackupKind, document_text

if TYPE_CHECKING:
    from uuid import UUID

    from vsssnap._win32.backup_components import BackupComponents
    from vsssnap._win32.dll import System
    from vsssnap.providers.vss.components import Choice
    from vsssnap.providers.vss.options import ComponentSelection

TYPES = {
    BackupKind.COPY: BackupType.VSS_BT_COPY,
    BackupKind.FULL: BackupType.VSS_BT_FULL,
    BackupKind.INCREMENTAL: BackupType.VSS_BT_INCREMENTAL,
    BackupKind.DIFFERENTIAL: BackupType.VSS_BT_DIFFERENTIAL,
    BackupKind.LOG: BackupType.VSS_BT_LOG,
}
"""What SetBackupState takes."""

SCHEMAS = {
    BackupKind.INCREMENTAL: BackupSchema.VSS_BS_INCREMENTAL,
    BackupKind.DIFFERENTIAL: BackupSchema.VSS_BS_DIFFERENTIAL,
    BackupKind.LOG: BackupSchema.VSS_BS_LOG,
}
"""What a writer must know for a kind of backup."""


def tell(system: System, vss: BackupComponents, choice: Choice, selection: ComponentSelection) -> None:
    """SetBackupOptions and SetPreviousBackupStamp of what was added; notes what there is none of.

    Raises:
        SnapshotError: the document that it continues is none that VSS wrote.
    """
    kind, continues = selection.kind, selection.based_on
    schema = SCHEMAS.get(kind)
    unknowing = {one.writer.name for one in choice.explicit if schema and not one.writer.schema & schema}
    choice.notes += [f"{name} does not know {kind.value} backups." for name in sorted(unknowing)]
    known = {} if continues is None else left(system, document_text(continues))
    for one in choice.explicit:
        if options := choice.options_of(one):
            vss.set_backup_options(one.writer, one.component, options)
        if continues is None:
            continue
        if stamp := known.get((one.writer.writer_id, one.key), ""):
            vss.set_previous_backup_stamp(one.writer, one.component, stamp)
        elif one.writer.name not in unknowing:
            choice.notes.append(f"{one.name} has no stamp of the backup that this one continues.")


def left(system: System, document: str) -> dict[tuple[UUID, str], str]:
    """The stamps in a document, by writer and path as components are compared."""
    reader = RestoreComponents(system)
    try:
        reader.initialize_for_restore(document)
        return {
            (one.writer_id, full_path(one).casefold()): one.stamp
            for one in reader.saved_components(stamps=True)
            if one.stamp
        }
    finally:
        reader.release()
