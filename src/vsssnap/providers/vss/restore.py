"""Restoring the data of applications with their VSS writers taking part.

The order, from "Overview of Processing a Restore Under VSS": InitializeForRestore with the document of
the backup, GatherWriterMetadata, SetSelectedForRestore, PreRestore; the files; SetFileRestoreStatus,
PostRestore, Release.  Once PreRestore was called writers wait for PostRestore, so it is called on
every path, and components of which nothing was said are then reported as failed.
"""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Self

from vsssnap._arguments import instance
from vsssnap._deadline import Deadline
from vsssnap._win32.hresult import HResult
from vsssnap.errors import ProviderUnavailableError, SnapshotError, UsageError
from vsssnap.providers.vss.management import current_system
from vsssnap.providers.vss.options import document_text
from vsssnap.providers.vss.restorable import (
    FileSet,
    Placement,
    RestorableComponent,
    RestoreStatus,
)
from vsssnap.providers.vss.restore_session import RestoreSession
from vsssnap.providers.vss.worker import start

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from vsssnap._win32.restore_components import RestoreComponents, SavedComponent
    from vsssnap.metadata import WriterReport

__all__ = ["WriterRestore"]

_log = logging.getLogger("vsssnap.vss")

_END_BUDGET = 60.0  # seconds for PostRestore and Release, where nobody has said how long


def _abandon(session: RestoreSession) -> None:
    try:
        session.close(_END_BUDGET)
    except SnapshotError as exc:
        _log.warning("a restore that nobody ended: %s", exc)


def _text(value: object, name: str, *, may_be_empty: bool = False) -> None:
    instance(value, str, name)
    if "\0" in str(value) or not (value or may_be_empty):
        raise UsageError(f"{name} is {value!r}", hint="pass a text without null characters")


def _place(files: FileSet, to: str) -> tuple[str, str, bool, str]:
    instance(files, FileSet, "files")
    _text(files.path, "the folder of the files")
    _text(files.spec, "the names of the files")
    _text(to, "to")
    return files.path, files.spec, files.recursive, to


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
        self._document = document_text(document)
        self._seconds = Deadline(timeout).seconds
        self._session: RestoreSession | None = None
        self._finalizer: weakref.finalize[[RestoreSession], WriterRestore] | None = None

    def __enter__(self) -> Self:
        if self._session is not None:
            raise UsageError("a WriterRestore is used once", hint="make a new one")
        system = current_system("restore with VSS writers")
        self._session = session = RestoreSession(system, start(system))
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

    def _live(self) -> RestoreSession:
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

    def select(self, *components: RestorableComponent, options: str = "", more: bool = False) -> None:
        """Choose what is restored; before `begin`.

        Args:
            *components: Of `components`.
            options: What their writers are to know, in the writers' own language; "" for nothing.
            more: Whether restores of backups that continued this one follow, so that applications do not
                take over yet (SetAdditionalRestores).

        Raises:
            UsageError: it is too late, or one is none of this restore, or parts of it are selected.
            ProviderUnavailableError: its writer does not run.
        """
        instance(more, bool, "more")
        _text(options, "options", may_be_empty=True)
        for one in components:
            session, saved = self._before(one)
            if one in session.parts:
                raise UsageError(f"parts of {one.path} are selected", hint="select it, or parts of it")

            def tell(vss: RestoreComponents, saved: SavedComponent = saved) -> None:
                vss.set_selected_for_restore(saved, True)
                if options:
                    vss.set_restore_options(saved, options)
                if more:
                    vss.set_additional_restores(saved, more)

            self._tell(tell, "SetSelectedForRestore")
            session.selected[one] = None

    def select_part(self, component: RestorableComponent, part: str) -> None:
        r"""Choose something that lies below a component of the backup, instead of all of it; before `begin`.

        Args:
            component: Of `components`: what was named in the backup.
            part: Logical path and name of what lies below (``"SERVER\\shop\\logs"``).  Its writer decides
                whether it can be restored by itself (`WriterComponent.selectable_for_restore`).

        Raises:
            UsageError: it is too late, or the component is none of this restore, or is selected whole.
            ProviderUnavailableError: VSS does not know the component, or its writer does not run.
        """
        _text(part, "part")
        session, saved = self._before(component)
        if component in session.selected and component not in session.parts:
            raise UsageError(f"{component.path} is selected whole", hint="select it, or parts of it")
        path, _, name = part.strip("\\").rpartition("\\")
        self._tell(lambda vss: vss.add_restore_subcomponent(saved, path, name), "AddRestoreSubcomponent")
        session.parts.add(component)
        session.selected[component] = None

    def redirect(self, component: RestorableComponent, files: FileSet, to: str) -> None:
        """Say that files will be restored to another folder (AddNewTarget); before `begin`.

        Args:
            component: Of those that are selected.
            files: Which, exactly as its writer's metadata document has them.
            to: The whole path of the folder.

        Raises:
            UsageError: it is too late, or the component is not selected.
            ProviderUnavailableError: the component has no such files.
        """
        session, saved = self._before(component)
        if component not in session.selected:
            raise UsageError(f"{component.path} is not selected", hint="select it first")
        where = _place(files, to)
        self._tell(lambda vss: vss.add_new_target(saved, *where), "AddNewTarget", files)

    def placement(self, component: RestorableComponent) -> Placement:
        """Where its writer wants the files of a component; after `begin`.

        Raises:
            UsageError: it was not begun, or the component is not selected.
            SnapshotError: what the writer says makes no sense.
        """
        session = self._live()
        if component not in session.selected or not session.begun:
            raise UsageError("writers say that when the restore has begun, of what is selected")
        found: list[Placement] = []
        self._call(lambda _: found.append(session.placement(component)), "GetRestoreTarget")
        return found[0]

    def restored_elsewhere(self, component: RestorableComponent, files: FileSet, to: str) -> None:
        """Say that files were restored to an alternate location of their writer; after `begin`.

        Writers name such folders in their metadata documents, for files that cannot be put back where they
        were (AddAlternativeLocationMapping).

        Args:
            component: Of those that are selected.
            files: Which, exactly as its writer's metadata document has them.
            to: The whole path of the folder.

        Raises:
            UsageError: it was not begun, or is finished, or the component is not selected.
            ProviderUnavailableError: the component has no such files.
        """
        session, where = self._live(), _place(files, to)
        if component not in session.selected or not session.begun or session.ended:
            raise UsageError(f"{component!r}: files are restored between begin and finish")
        saved = session.saved[component]
        step = "AddAlternativeLocationMapping"
        self._tell(lambda vss: vss.add_alternative_location_mapping(saved, *where), step, files)

    def _before(self, component: RestorableComponent) -> tuple[RestoreSession, SavedComponent]:
        """A component of this restore, before writers are told."""
        session = self._live()
        if session.begun:
            raise UsageError("writers were told already", hint="select before begin")
        saved = session.saved.get(component)
        if saved is None:
            raise UsageError(f"{component!r} is no component of this restore")
        return session, saved

    def _tell(
        self, tell: Callable[[RestoreComponents], None], step: str, files: FileSet | None = None
    ) -> None:
        session = self._live()
        try:
            self._call(lambda deadline: tell(session.vss), step)
        except SnapshotError as exc:
            if files is None or exc.code != HResult.VSS_E_OBJECT_NOT_FOUND:
                raise
            why = f"the component has no files {files.path!r}, {files.spec!r}, recursive={files.recursive}"
            hint = "name one of its file sets exactly as its writer's metadata document does"
            raise ProviderUnavailableError(
                why, call=step, code=exc.code, hint=hint, reasons={"vss": why}
            ) from exc

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
