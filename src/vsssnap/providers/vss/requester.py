"""Runs the sequence; every method is for the worker's thread alone."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vsssnap._win32 import com, privileges, volumes
from vsssnap._win32.backup_components import BackupComponents
from vsssnap._win32.constants import (
    SE_BACKUP_NAME,
    SnapshotAttributes,
    SnapshotContext,
)
from vsssnap._win32.failures import error_for
from vsssnap._win32.handles import WindowsCallError
from vsssnap._win32.hresult import HResult, name_of
from vsssnap._win32.operations import wait
from vsssnap.errors import (
    InsufficientStorageError,
    SnapshotBusyError,
    SnapshotError,
)
from vsssnap.providers.base import ProviderStep
from vsssnap.providers.vss import existing, gathering, names, sequence, stamps, writers
from vsssnap.providers.vss.components import Choice
from vsssnap.providers.vss.journal import Entry, Journal
from vsssnap.providers.vss.options import BackupKind, ComSecurity, VssOptions
from vsssnap.providers.vss.worker import set_security

if TYPE_CHECKING:
    from uuid import UUID

    from vsssnap._deadline import Deadline
    from vsssnap._win32.backup_components import ShadowCopy, WriterStatus
    from vsssnap._win32.dll import System
    from vsssnap._win32.writer_metadata import FileSet, WriterMetadata

_log = logging.getLogger("vsssnap.vss")

_CONTEXTS = {  # (persistent, with writers): _VSS_SNAPSHOT_CONTEXT
    (False, True): SnapshotContext.VSS_CTX_BACKUP,
    (False, False): SnapshotContext.VSS_CTX_FILE_SHARE_BACKUP,
    (True, True): SnapshotContext.VSS_CTX_APP_ROLLBACK,
    (True, False): SnapshotContext.VSS_CTX_NAS_ROLLBACK,
}

_BUSY_STILL = 60.0  # seconds before another try makes sense, after one that lasted to the deadline
_BUSY_FIRST, _BUSY_MOST = 0.5, 5.0  # seconds between two tries at a busy set, rising


@dataclass(slots=True)
class Requester:
    """One backup, from CreateVssBackupComponents to Release.

    Attributes:
        system: The libraries.
        names: GUID paths of the volumes, each once.
        options: What else was asked for.
        persistent: Whether the shadow copies outlive this process.
        need_writers: Whether a failed writer fails the snapshot.
        kept: Whether persistent ones were taken whole; else `end` deletes them.
        statuses: What writers reported last.
        metadata: What they said of themselves.
        copies: The shadow copies, by the GUID path of their volume.
        document: The backup components document, or "".
        choice: The components, where only some are backed up.
        unread: The GUID paths of volumes of which something could not be read.
        lacks_right: Why SeBackupPrivilege is not on for this process; "" if it is.
        log: Takes each step that has ended.
    """

    system: System
    names: tuple[str, ...]
    options: VssOptions
    persistent: bool = False
    need_writers: bool = False
    kept: bool = False
    statuses: list[WriterStatus] = field(default_factory=list)
    metadata: list[WriterMetadata] = field(default_factory=list)
    copies: dict[str, ShadowCopy] = field(default_factory=dict)
    document: str = ""
    choice: Choice | None = None
    unread: set[str] = field(default_factory=set)
    lacks_right: str = ""
    log: list[ProviderStep] = field(default_factory=list)
    _components: BackupComponents | None = None
    _ids: dict[str, UUID] = field(default_factory=dict)
    _gathering: bool = False
    _set_started: bool = False
    _set_id: UUID | None = None
    _entry: Entry | None = None
    _done: bool = False
    _completed: bool = False

    def run(self, table: tuple[sequence.Step, ...], deadline: Deadline) -> None:
        """Run the steps of a table in their order, each within its own budget."""
        for step in sequence.steps(table, writers=self.options.writers):
            deadline.check(step.name)
            whose = f"set {self._set_id}: " if self._set_id is not None else ""
            started = time.monotonic()
            timeouts = self.options.timeouts
            seconds = getattr(timeouts, step.timeout) if step.timeout else step.seconds
            hint = f"raise timeouts=StepTimeouts({step.timeout}=) or " if step.timeout else ""
            hint += "find what blocks it"
            try:
                getattr(self, step.name)(deadline.child(seconds, hint))
            except SnapshotError as exc:
                code = name_of(exc.code) if exc.code is not None else ""
                if isinstance(exc, InsufficientStorageError):
                    for note in filter(
                        None, (existing.storage_note(self.system, name) for name in self.names)
                    ):
                        exc.add_note(note)
                lasted = time.monotonic() - started
                self.log.append(ProviderStep(step.name, lasted, exc.code, str(exc)))
                _log.info("%s%s failed after %.2f s: %s", whose, step.name, lasted, code or exc)
                raise
            lasted = time.monotonic() - started
            self.log.append(ProviderStep(step.name, lasted))
            _log.debug("%s%s: %.3f s", whose, step.name, lasted)

    @property
    def _vss(self) -> BackupComponents:
        if self._components is None:
            raise SnapshotError("the shadow copy was released", hint="take a new snapshot")
        return self._components

    # Steps; each takes its budget.

    def create(self, deadline: Deadline) -> None:
        """COM security, rights, and the object itself."""
        del deadline
        if self.options.com_security is not ComSecurity.NEVER:
            code = set_security(self.system)
            if self.options.com_security is ComSecurity.REQUIRE and not com.security_is_usable(code):
                raise error_for(code, "CoInitializeSecurity")
        try:
            if not privileges.enable(self.system, SE_BACKUP_NAME):
                self.lacks_right = f"the account does not have {SE_BACKUP_NAME}"
        except WindowsCallError as exc:
            self.lacks_right = f"{SE_BACKUP_NAME} cannot be enabled: {exc}"
        if self.lacks_right:
            _log.info("%s", self.lacks_right)
        self._components = BackupComponents(self.system)

    def initialize(self, deadline: Deadline) -> None:
        """InitializeForBackup."""
        del deadline
        self._vss.initialize_for_backup()

    def set_context(self, deadline: Deadline) -> None:
        """SetContext, unless it is the one that objects are made with."""
        del deadline
        context = int(_CONTEXTS[self.persistent, self.options.writers])
        if not self.options.auto_recovery:
            context |= SnapshotAttributes.VSS_VOLSNAP_ATTR_NO_AUTORECOVERY
        if context:
            self._vss.set_context(context)

    def set_backup_state(self, deadline: Deadline) -> None:
        """SetBackupState: as a copy that disturbs nobody's chain of backups, if nothing else is asked."""
        del deadline
        selection = self.options.components
        self._vss.set_backup_state(
            select_components=selection is not None,
            bootable=self._has_system_volume(),
            kind=stamps.TYPES[BackupKind.COPY if selection is None else selection.kind],
        )

    def _has_system_volume(self) -> bool:
        drive = os.environ.get("SYSTEMDRIVE", "C:")
        try:
            return volumes.volume_guid_path(self.system, drive) in self.names
        except WindowsCallError:
            return False

    def exclude_writers(self, deadline: Deadline) -> None:
        """DisableWriterClasses; names are looked up with an object of their own, for that gathers too."""
        excluded = self.options.exclude_writers
        if not excluded:
            return
        known: list[WriterMetadata] = []
        if any(writers.as_id(item) is None for item in excluded):
            with gathering.gathered(self.system, deadline) as scout:
                known = scout.writer_metadata()
        self._vss.disable_writer_classes(writers.excluded_ids(excluded, known))

    def gather_writers(self, deadline: Deadline) -> None:
        """GatherWriterMetadata."""
        self._gathering = True
        wait(self._vss.gather_writer_metadata(), deadline, "GatherWriterMetadata")
        selection = self.options.components
        self.metadata = self._vss.writer_metadata(
            components=selection is not None,
            schema=selection is not None and selection.kind in stamps.SCHEMAS,
        )

    def add_components(self, deadline: Deadline) -> None:
        """AddComponent of each that stands for others or for itself."""
        if self.options.components is None:
            return
        self.choice = choice = Choice(
            self.metadata,
            self.options.components,
            volumes_of=names.component_volumes(self.system),
            inside=self.names,
            shown=lambda volume: existing.shown(self.system, volume),
        )
        if self._vss.unreadable:
            count = self._vss.unreadable
            choice.notes.append(
                f"{count} VSS writers' documents cannot be read: their components are not here."
            )
        for one in choice.explicit:
            deadline.check("AddComponent")
            self._vss.add_component(one.writer, one.component)
        stamps.tell(self.system, self._vss, choice, self.options.components)

    def start_set(self, deadline: Deadline) -> None:
        """StartSnapshotSet, until no other requester creates a set."""
        pause, tries = _BUSY_FIRST, 0
        while True:
            tries += 1
            try:
                set_id = self._vss.start_snapshot_set()
            except SnapshotBusyError as exc:
                wanted = pause * random.uniform(0.75, 1.25)  # noqa: S311 - so that two do not meet for ever
                if deadline.left() <= wanted:
                    exc.add_note(f"tried {tries} times within {deadline.seconds:g} s")
                    exc.retry_after = _BUSY_STILL
                    raise
                deadline.sleep(wanted, "StartSnapshotSet: another program is creating a shadow copy")
                pause = min(pause * 2, _BUSY_MOST)
            else:
                self._set_started = True
                self._set_id = set_id
                self._entry = Journal(self.system).begin(set_id, self.names, persistent=self.persistent)
                _log.debug("set %s", set_id)
                threading.current_thread().name += f" {set_id}"  # so that logs and dumps tell whose it is
                return

    def add_volumes(self, deadline: Deadline) -> None:
        """IsVolumeSupported and AddToSnapshotSet, volume by volume."""
        provider = self.options.provider_id()
        for name in self.names:
            deadline.check("AddToSnapshotSet")
            shown = existing.shown(self.system, name)
            if not self._vss.is_volume_supported(name, provider, shown=shown):
                raise error_for(HResult.VSS_E_VOLUME_NOT_SUPPORTED, "IsVolumeSupported", shown)
            self._ids[name] = self._vss.add_to_snapshot_set(name, provider, shown=shown)

    def prepare_writers(self, deadline: Deadline) -> None:
        """PrepareForBackup."""
        wait(self._vss.prepare_for_backup(), deadline, "PrepareForBackup")

    def ask_writers(self, deadline: Deadline) -> None:
        """GatherWriterStatus; a failure counts if the snapshot needs the writers."""
        wait(self._vss.gather_writer_status(), deadline, "GatherWriterStatus")
        self.statuses = self._vss.writer_status()
        if self.choice is not None:  # the others get no events, and what they say is of another backup
            self.statuses = writers.of_those(self.statuses, [one.writer for one in self.choice.explicit])
        for status in filter(writers.has_failed, self.statuses):
            _log.warning("VSS writer %s: %s", status.name, writers.report(status).message)
        failure = writers.first_failure(self.statuses)
        if failure is not None and self.need_writers:
            raise failure

    def do_snapshot_set(self, deadline: Deadline) -> None:
        """DoSnapshotSet."""
        self._done = True  # also if it fails: it may have ended after all
        wait(self._vss.do_snapshot_set(), deadline, "DoSnapshotSet")

    def read_properties(self, deadline: Deadline) -> None:
        """GetSnapshotProperties of each."""
        del deadline
        self.copies = {volume: self._vss.snapshot(snapshot) for volume, snapshot in self._ids.items()}

    def save_document(self, deadline: Deadline) -> None:
        """SaveAsXML."""
        del deadline
        self.document = self._vss.save_as_xml()

    def tell_components(self, deadline: Deadline) -> None:
        """SetBackupSucceeded of each that was added: whether all that was read of it could be."""
        if self.choice is None:
            return
        for one in self.choice.explicit:
            deadline.check("SetBackupSucceeded")
            good = not self.choice.all_volumes(one) & self.unread
            self._vss.set_backup_succeeded(one.writer, one.component, good)

    def backup_complete(self, deadline: Deadline) -> None:
        """BackupComplete."""
        wait(self._vss.backup_complete(), deadline, "BackupComplete")
        self._completed = True
        self.need_writers = False  # the copy is made: what they report now changes nothing about it

    # Not steps.

    def owned_files(self) -> list[tuple[str, FileSet]]:
        """The files of the components that are backed up, by the names of these."""
        chosen = self.choice.candidates if self.choice is not None else []
        return [
            (one.name, files) for one in chosen if one.state != "left out" for files in one.component.files
        ]

    def complete(self, deadline: Deadline) -> None:
        """The copies are made and good: tell the writers, if any take part."""
        if not self.options.writers:
            self._completed = True  # nobody has to be told, and nothing is under way that could be aborted
        self.run(sequence.COMPLETE, deadline)

    def alive(self) -> None:
        """See `existing.check_alive`."""
        self.copies = existing.check_alive(self.system, self._vss, self.copies)

    def end(self) -> None:
        """AbortBackup if it is due, and Release; this ends the shadow copies that are not kept.

        Raises:
            SnapshotError: AbortBackup failed, or shadow copies could not be deleted; everything is
                released all the same.
        """
        components, self._components = self._components, None
        if components is None:
            return
        try:
            if self._gathering:
                components.free()
            if self._set_started and not self._completed:
                components.abort_backup()
        finally:
            components.release()
            self._settle()

    def _settle(self) -> None:
        """Delete what is not kept, and say in the journal what became of the set."""
        entry, self._entry = self._entry, None
        kept = self.persistent and self._done and self.kept
        try:
            if self.persistent and self._done and not kept and self._set_id is not None:
                existing.delete_set(self.system, self._set_id)
        except BaseException:
            if entry is not None:
                entry.leave()
            raise
        if entry is not None and kept:
            entry.keep()
        elif entry is not None:
            entry.forget()
