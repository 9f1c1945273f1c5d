"""Restoring the data of applications with their VSS writers taking part.

The order, from "Overview of Processing a Restore Under VSS": InitializeForRestore with the document of
the backup, GatherWriterMetadata, SetSelectedForRestore, PreRestore; the files; SetFileRestoreStatus,
PostRestore, Release.  Once PreRestore was called writers wait for PostRestore, so it is called on
every path, and components of which nothing was said are then reported as failed.
"""

from __future__ import annotations

import enum
import logging
import os
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from uuid import UUID

from vsssnap._arguments import instance
from vsssnap._deadline import Deadline
from vsssnap._win32.constants import FileRestoreStatus
from vsssnap._win32.operations import wait
from vsssnap._win32.restore_components import RestoreComponents, SavedComponent
from vsssnap.errors import ClosedError, SnapshotError, UsageError
from vsssnap.providers.vss import writers
from vsssnap.providers.vss.management import current_system
from vsssnap.providers.vss.worker import Worker, finish, start

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from vsssnap._win32.backup_components import WriterStatus
    from vsssnap._win32.dll import System
    from vsssnap.metadata import WriterReport

__all__ = ["RestorableComponent", "RestoreStatus", "WriterRestore"]

_log = logging.getLogger("vsssnap.vss")

_END_BUDGET = 60.0  # seconds for PostRestore and Release, where nobody has said how long


class RestoreStatus(enum.Enum):
    """What became of the files of a component (VSS_FILE_RESTORE_STATUS)."""

    ALL = FileRestoreStatus.VSS_RS_ALL
    """All were restored."""
    NONE = FileRestoreStatus.VSS_RS_NONE
    """None was."""
    FAILED = FileRestoreStatus.VSS_RS_FAILED
    """Some were, and some were not."""


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


class _Session:
    """The requester of a restore; every method but `close` is for the worker's thread alone."""

    def __init__(self, system: System, worker: Worker) -> None:
        self.system, self.worker, self.pid = system, worker, os.getpid()
        self.saved: dict[RestorableComponent, SavedComponent] = {}
        self.selected: dict[RestorableComponent, RestoreStatus | None] = {}
        self.begun = False
        self.ended = False
        self.refused = False  # whether the beginning failed, so that its end says nothing new
        self.reports: tuple[WriterReport, ...] = ()
        self._vss: RestoreComponents | None = None

    @property
    def vss(self) -> RestoreComponents:
        if self._vss is None:
            raise ClosedError("the restore is over", hint="begin a new one")
        return self._vss

    def initialize(self, document: str, deadline: Deadline) -> None:
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
        operation = self.vss.pre_restore()
        self.begun = True  # also if it fails from here: writers may have got the event after all
        self.refused = True
        wait(operation, deadline, "PreRestore")
        self._ask(deadline, "before")
        self.refused = False

    def finish(self, deadline: Deadline) -> None:
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
        """How the writers of what was selected are; a failure is an error."""
        wait(self.vss.gather_writer_status(), deadline, "GatherWriterStatus")
        own = {UUID(one.writer_id) for one in self.selected}
        found: list[WriterStatus] = [one for one in self.vss.writer_status() if one.writer_id in own]
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


def _abandon(session: _Session) -> None:
    try:
        session.close(_END_BUDGET)
    except SnapshotError as exc:
        _log.warning("a restore that nobody ended: %s", exc)


class WriterRestore:
    """A restore of components of VSS writers, which prepare for it and take over afterwards.

    ::

        with open_image("c.vsnap") as image:
            document = image.metadata.documents["vss/backup-components.xml"]
        with WriterRestore(document) as restore:
            chosen = [one for one in restore.components if one.running]
            restore.select(*chosen)
            restore.begin()                     # applications let go of their files
            for one in chosen:
                ...                             # put the files back, however you do that
                restore.report(one, RestoreStatus.ALL)
        # left: applications have taken over

    Use from one thread.  If the block is left by an exception after `begin`, what was not reported is
    reported as FAILED, and applications take over all the same.
    """

    def __init__(self, document: bytes | str, /, *, timeout: float = 600.0) -> None:
        """Describe a restore; nothing is touched before the ``with`` block is entered.

        Args:
            document: The backup components document of the backup
                (``metadata.documents["vss/backup-components.xml"]``).
            timeout: Seconds for each step.

        Raises:
            UsageError: ``document`` is no text.
        """
        if not isinstance(document, bytes | str):
            raise UsageError(f"the document is {type(document).__name__}, no text")
        try:
            self._document = (
                document if isinstance(document, str) else document.decode("utf-8", "surrogatepass")
            )
        except ValueError as exc:
            raise UsageError(f"the document is no text: {exc}") from None
        self._seconds = Deadline(timeout).seconds
        self._session: _Session | None = None
        self._finalizer: weakref.finalize[[_Session], WriterRestore] | None = None

    def __enter__(self) -> Self:
        if self._session is not None:
            raise UsageError("a WriterRestore is used once", hint="make a new one")
        system = current_system("restore with VSS writers")
        self._session = session = _Session(system, start(system))
        self._finalizer = weakref.finalize(self, _abandon, session)
        try:
            self._call(lambda deadline: session.initialize(self._document, deadline), "InitializeForRestore")
        except BaseException as exc:
            self._close(exc)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._close(value)

    def _close(self, first: BaseException | None) -> None:
        session = self._live()
        if self._finalizer is None or self._finalizer.detach() is None:
            return
        try:
            session.close(self._seconds)
        except Exception as exc:
            if first is None:
                raise
            first.add_note(f"ending the restore failed too: {exc}")

    def _live(self) -> _Session:
        if self._session is None:
            raise UsageError("the restore is not begun", hint="use it in a with block")
        return self._session

    def _call(self, run: Callable[[Deadline], None], step: str) -> None:
        deadline = Deadline(self._seconds)
        self._live().worker.call(lambda: run(deadline), deadline, step)

    @property
    def components(self) -> tuple[RestorableComponent, ...]:
        """What was named in the backup; what lies below one is restored with it."""
        return tuple(self._live().saved)

    @property
    def writers(self) -> tuple[WriterReport, ...]:
        """How the writers of what was selected are, after the last step."""
        return self._live().reports

    def select(self, *components: RestorableComponent, options: str = "") -> None:
        """Choose what is restored; before `begin`.

        Args:
            *components: Of `components`.
            options: What their writers are to know, in the writers' own language; "" for nothing.

        Raises:
            UsageError: it is too late, or one is none of this restore.
            ProviderUnavailableError: its writer does not run.
        """
        session = self._live()
        if session.begun:
            raise UsageError("writers were told already", hint="select before begin")
        instance(options, str, "options")
        if "\0" in options:
            raise UsageError("options hold a null character")
        for one in components:
            saved = session.saved.get(one)
            if saved is None:
                raise UsageError(f"{one!r} is no component of this restore")

            def tell(deadline: Deadline, saved: SavedComponent = saved) -> None:
                del deadline
                session.vss.set_selected_for_restore(saved, True)
                if options:
                    session.vss.set_restore_options(saved, options)

            self._call(tell, "SetSelectedForRestore")
            session.selected[one] = None

    def begin(self) -> None:
        """Have applications let go of what is restored (PreRestore).

        Raises:
            UsageError: nothing is selected, or it was begun already.
            WriterFailedError: a writer refuses; leave the block without restoring.
            SnapshotTimeoutError: a writer does not answer.
        """
        session = self._live()
        if session.begun or not session.selected:
            raise UsageError("the restore is begun" if session.begun else "no component is selected")
        self._call(session.begin, "PreRestore")

    def report(self, component: RestorableComponent, status: RestoreStatus) -> None:
        """Say what became of the files of a component; between `begin` and `finish`.

        Raises:
            UsageError: it was not selected, or ``status`` is no `RestoreStatus`.
        """
        session = self._live()
        if component not in session.selected or not isinstance(status, RestoreStatus):
            raise UsageError(f"{component!r}: {status!r}", hint="select it, and pass a RestoreStatus")
        if not session.begun or session.ended:
            raise UsageError("files are restored between begin and finish")
        session.selected[component] = status

    def finish(self) -> None:
        """Have applications take over what was restored (PostRestore); leaving the block does it, too.

        Raises:
            UsageError: it was not begun, or is finished.
            WriterFailedError: a writer could not.
            SnapshotTimeoutError: a writer does not answer.
        """
        session = self._live()
        if not session.begun or session.ended:
            raise UsageError("the restore is finished" if session.ended else "the restore was not begun")
        self._call(session.finish, "PostRestore")
