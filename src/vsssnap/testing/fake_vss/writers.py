"""Writers of a fake machine, and what they have to back up."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from vsssnap._win32.constants import (
    BackupSchema,
    ComponentType,
    RestoreMethod,
    WriterRestore,
    WriterState,
)
from vsssnap.errors import UsageError


@dataclass(frozen=True)
class FakeFiles:
    r"""Files of a component.

    Attributes:
        path: Their folder; ``"%SystemRoot%\\x"`` is understood (`FakeVss.environment`).
        spec: Their names.
        recursive: Whether folders below belong to it.
        alternate: Where they are backed up from instead, or "".
    """

    path: str
    spec: str = "*"
    recursive: bool = False
    alternate: str = ""

    def same_set(self, other: FakeFiles) -> bool:
        """Whether folder, names and recursion are the same, as VSS compares them."""
        mine, its = ((one.path.rstrip("\\").lower(), one.spec.lower()) for one in (self, other))
        return (mine, self.recursive) == (its, other.recursive)


@dataclass(frozen=True)
class FakeComponent:
    """A component of a writer.

    Attributes:
        name: Its name.
        logical_path: What it lies below, or "".
        selectable: Whether a requester may choose it for a backup.
        selectable_for_restore: Likewise for a restore.
        kind: What it is; files of a database are all given as its database files.
        files: Its files.
        needs: Components it depends on: writer's class id, logical path, name.
        stamp: The backup stamp that its writer leaves in the requester's document, or "" for none.
    """

    name: str
    logical_path: str = ""
    selectable: bool = True
    selectable_for_restore: bool = False
    kind: ComponentType = ComponentType.VSS_CT_FILEGROUP
    files: tuple[FakeFiles, ...] = ()
    needs: tuple[tuple[UUID, str, str], ...] = ()
    stamp: str = ""

    @property
    def path(self) -> str:
        """Logical path and name, by which components are compared."""
        return "\\".join(filter(None, (self.logical_path, self.name))).lower()


@dataclass(eq=False)
class FakeWriter:
    """A VSS writer.

    Attributes:
        name: Its name.
        fails_at: The event at which it fails: ``"identify"``, ``"prepare_backup"``, ``"prepare_snapshot"``,
            ``"freeze"``, ``"thaw"``, ``"post_snapshot"``, ``"backup_complete"``, ``"pre_restore"`` or
            ``"post_restore"``.  One that fails to identify itself is not there for a requester.
        code: What it then reports, an unsigned HRESULT.
        times: How often it fails before it recovers.
        message: What its application says.
        components: What it has to back up.
        events: Names of the events it got.
        state: What it reports now.
        on_component: Called for each of its components in the requester's document at an event at which
            writers get them (``"prepare_backup"``, ``"post_snapshot"``, ``"backup_complete"``,
            ``"pre_restore"``, ``"post_restore"``), with the name of the event and an ``IVssComponentEx2 *``
            whose setters work as they do for a writer.
        instance_name: Tells several instances of it apart.
        version: Major and minor.
        schema: What kinds of backup it knows.
        restore_method: How its files are put back.
        called_after: Whether it takes part in a restore.
        service: The service that is stopped for that, or "".
        procedure: Where it says what people have to do for that, or "".
        reboot: Whether the machine is restarted then.
        mappings: Where files are put that cannot be put back where they were (`FakeFiles.alternate`).
        excludes: Files of its components that are not backed up.
        not_in_snapshot: Files that it removes from shadow copies.
        blocks_revert: Whether volumes with its data are not to be reverted (WritersBlockingRevert).
    """

    name: str
    fails_at: str = ""
    code: int = 0
    times: float = float("inf")
    message: str = ""
    components: tuple[FakeComponent, ...] = ()
    writer_id: UUID = field(default_factory=uuid.uuid4)
    instance_id: UUID = field(default_factory=uuid.uuid4)
    events: list[str] = field(default_factory=list)
    state: WriterState = WriterState.VSS_WS_STABLE
    failure: int = 0
    on_component: Callable[[str, Any], None] | None = None
    instance_name: str = ""
    version: tuple[int, int] = (1, 0)
    schema: BackupSchema = BackupSchema.VSS_BS_COPY
    restore_method: RestoreMethod = RestoreMethod.VSS_RME_RESTORE_IF_CAN_REPLACE
    called_after: WriterRestore = WriterRestore.VSS_WRE_ALWAYS
    service: str = ""
    procedure: str = ""
    reboot: bool = False
    mappings: tuple[FakeFiles, ...] = ()
    excludes: tuple[FakeFiles, ...] = ()
    not_in_snapshot: tuple[FakeFiles, ...] = ()
    blocks_revert: bool = False

    def __post_init__(self) -> None:
        if self.fails_at and self.fails_at not in _FAILED:
            raise UsageError(f"no event {self.fails_at!r}", hint=f"known are {', '.join(_FAILED)}")

    @property
    def document(self) -> str:
        """Its writer metadata document."""
        from vsssnap.testing.fake_vss import writer_documents

        return writer_documents.write(self)

    def on(self, event: str) -> None:
        """Get an event; one that has failed gets no more until the next backup or restore."""
        if event in ("prepare_backup", "pre_restore"):
            self.state, self.failure = WriterState.VSS_WS_STABLE, 0
        elif self.failure and event not in ("identify", "abort", "backup_shutdown"):
            return
        self.events.append(event)
        if event == self.fails_at and self.times > 0:
            self.times -= 1
            self.failure, self.state = self.code, _FAILED[event]
        elif not self.failure and event != "identify":
            self.state = _HEALTHY.get(event, WriterState.VSS_WS_STABLE)


_W = WriterState
_FAILED = {
    "identify": _W.VSS_WS_FAILED_AT_IDENTIFY,
    "prepare_backup": _W.VSS_WS_FAILED_AT_PREPARE_BACKUP,
    "prepare_snapshot": _W.VSS_WS_FAILED_AT_PREPARE_SNAPSHOT,
    "freeze": _W.VSS_WS_FAILED_AT_FREEZE,
    "thaw": _W.VSS_WS_FAILED_AT_THAW,
    "post_snapshot": _W.VSS_WS_FAILED_AT_POST_SNAPSHOT,
    "backup_complete": _W.VSS_WS_FAILED_AT_BACKUP_COMPLETE,
    "pre_restore": _W.VSS_WS_FAILED_AT_PRE_RESTORE,
    "post_restore": _W.VSS_WS_FAILED_AT_POST_RESTORE,
}
_HEALTHY = {
    "prepare_snapshot": _W.VSS_WS_WAITING_FOR_FREEZE,
    "freeze": _W.VSS_WS_WAITING_FOR_THAW,
    "thaw": _W.VSS_WS_WAITING_FOR_POST_SNAPSHOT,
    "post_snapshot": _W.VSS_WS_WAITING_FOR_BACKUP_COMPLETE,
}
