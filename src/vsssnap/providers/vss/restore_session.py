"""A restore with writers as one thread goes through it; `restore` is what users see of it."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING
from uuid import UUID

from vsssnap._deadline import Deadline
from vsssnap._win32.guids import GUID_NULL
from vsssnap._win32.operations import wait
from vsssnap._win32.restore_components import RestoreComponents, SavedComponent
from vsssnap.errors import ClosedError, SnapshotError
from vsssnap.providers.vss import writers
from vsssnap.providers.vss.restorable import Placement, RestorableComponent, RestoreStatus, placement
from vsssnap.providers.vss.worker import Worker, finish

if TYPE_CHECKING:
    from vsssnap._win32.backup_components import WriterStatus
    from vsssnap._win32.dll import System
    from vsssnap.metadata import WriterReport

_log = logging.getLogger("vsssnap.vss")


class RestoreSession:
    """The requester of a restore; every method but `close` is for the worker's thread alone."""

    def __init__(self, system: System, worker: Worker) -> None:
        self.system, self.worker, self.pid = system, worker, os.getpid()
        self.saved: dict[RestorableComponent, SavedComponent] = {}
        self.selected: dict[RestorableComponent, RestoreStatus | None] = {}
        self.parts: set[RestorableComponent] = set()  # of these some components below, and not all
        self.begun = False
        self.ended = False
        self.refused = False  # whether the beginning failed, so that its end says nothing new
        self.reports: tuple[WriterReport, ...] = ()
        self._vss: RestoreComponents | None = None

    @property
    def vss(self) -> RestoreComponents:
        """The requester.

        Raises:
            ClosedError: it was released.
        """
        if self._vss is None:
            raise ClosedError("the restore is over", hint="begin a new one")
        return self._vss

    def initialize(self, document: str, deadline: Deadline) -> None:
        """Load the document of the backup, and see which writers run."""
        self._vss = vss = RestoreComponents(self.system)
        vss.initialize_for_restore(document)
        wait(vss.gather_writer_metadata(), deadline, "GatherWriterMetadata")
        running = {writer.writer_id for writer in vss.writer_metadata()}
        for one in vss.saved_components():
            shown = RestorableComponent(
                writer_id=str(one.writer_id),
                instance_id=str(one.instance_id),
                path="\\".join(filter(None, (one.logical_path.strip("\\"), one.name))),
                succeeded=one.succeeded,
                running=one.writer_id in running,
            )
            self.saved[shown] = one

    def begin(self, deadline: Deadline) -> None:
        """PreRestore, and what writers said to it."""
        operation = self.vss.pre_restore()
        self.begun = True  # also if it fails from here: writers may have got the event after all
        self.refused = True
        wait(operation, deadline, "PreRestore")
        self._ask(deadline, "before")
        self.refused = False

    def placement(self, component: RestorableComponent) -> Placement:
        """Where the writer of a component wants its files; the document says so once it was told."""
        wanted = _key(self.saved[component])
        found = [one for one in self.vss.saved_components(targets=True) if _key(one) == wanted]
        if not found:
            raise SnapshotError(f"{component.path} is in the document no more", call="GetWriterComponents")
        return placement(found[0])

    def finish(self, deadline: Deadline) -> None:
        """SetFileRestoreStatus of each that was selected, and PostRestore."""
        first: SnapshotError | None = None
        for one, status in self.selected.items():
            try:
                told = status or RestoreStatus.FAILED
                self.vss.set_file_restore_status(self.saved[one], told.value)
            except SnapshotError as exc:  # writers wait for PostRestore, whatever they think of one of them
                first = first or exc
        self.ended = True
        wait(self.vss.post_restore(), deadline, "PostRestore")
        self._ask(deadline, "after")
        if first is not None:
            raise first

    def _ask(self, deadline: Deadline, where: str) -> None:
        """How the writers of what was selected are; a failure is an error.

        One that VSS does not speak of may have been stopped for the restore, and has not failed; one that
        cannot be asked has, and nobody knows which it is.
        """
        wait(self.vss.gather_writer_status(), deadline, "GatherWriterStatus")
        own = {UUID(one.writer_id) for one in self.selected}
        asked = self.vss.writer_status()
        if own - {one.writer_id for one in asked}:
            own.add(GUID_NULL)
        found: list[WriterStatus] = [one for one in asked if one.writer_id in own]
        self.reports = tuple(map(writers.report, found))
        failure = writers.first_failure(found)
        if failure is not None:
            for one in self.vss.saved_components():
                if said := getattr(one, where):
                    failure.add_note(f"{one.name}: {said}")
            raise failure

    def end(self, deadline: Deadline) -> None:
        """PostRestore if it is due, and Release."""
        vss, first = self._vss, None
        if vss is None:
            return
        try:
            if self.begun and not self.ended:
                self.finish(deadline)
        except SnapshotError as exc:
            if self.refused:
                _log.info("the end of a restore whose beginning failed: %s", exc)
            else:
                first = exc
        finally:
            self._vss = None
            vss.free()
            vss.release()
        if first is not None:
            raise first

    def close(self, seconds: float) -> None:
        """End it, from any thread of the process that began it."""
        if os.getpid() != self.pid:
            return
        deadline = Deadline(seconds)
        try:
            self.worker.call(lambda: self.end(deadline), deadline, "PostRestore")
        finally:
            finish(self.worker)


def _key(saved: SavedComponent) -> tuple[object, ...]:
    return saved.writer_id, saved.instance_id, saved.kind, saved.logical_path, saved.name
