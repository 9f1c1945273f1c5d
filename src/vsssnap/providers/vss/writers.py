"""What VSS writers report, and what it means for a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from vsssnap._win32.backup_components import WriterStatus
from vsssnap._win32.constants import WriterState
from vsssnap._win32.failures import error_for, fact
from vsssnap._win32.hresult import HResult, failed, name_of
from vsssnap.errors import SnapshotError, UsageError, WriterFailedError
from vsssnap.metadata import WriterReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vsssnap._win32.writer_metadata import WriterMetadata

_FIRST_FAILURE = WriterState.VSS_WS_FAILED_AT_IDENTIFY


def has_failed(status: WriterStatus) -> bool:
    """Whether a writer's last word is that it failed (VSS_WRITER_STATE)."""
    return failed(status.code) or status.state >= _FIRST_FAILURE or status.state == WriterState.VSS_WS_UNKNOWN


def of_those(statuses: Iterable[WriterStatus], chosen: Iterable[WriterMetadata]) -> list[WriterStatus]:
    """How the chosen writers are; one that is not there any more has failed."""
    known = {status.instance_id: status for status in statuses}
    return [
        known.get(instance)
        or WriterStatus(
            name=writer.name,
            writer_id=writer.writer_id,
            instance_id=instance,
            state=WriterState.VSS_WS_UNKNOWN,
            code=HResult.VSS_E_WRITER_NOT_RESPONDING,
        )
        for instance, writer in {writer.instance_id: writer for writer in chosen}.items()
    ]


def report(status: WriterStatus) -> WriterReport:
    """A writer's status as users see it."""
    parts = []
    if has_failed(status):
        parts.append(f"{fact(status.code).meaning} ({name_of(status.code)})" if status.code else "it failed")
    if status.application_code:
        parts.append(name_of(status.application_code))
    if status.message:
        parts.append(status.message)
    return WriterReport(
        name=status.name,
        writer_id=str(status.writer_id),
        instance_id=str(status.instance_id),
        state=status.state.name.removeprefix("VSS_WS_"),
        code=status.code,
        message=": ".join(parts),
    )


def first_failure(statuses: Iterable[WriterStatus]) -> SnapshotError | None:
    """The error for the writer that failed worst, or None if all are well.

    One that cannot be tried again comes before one that can: trying again does not help it.
    """
    found = [_error(status) for status in statuses if has_failed(status)]
    if not found:
        return None
    found.sort(key=lambda error: error.retryable)
    for other in found[1:]:
        found[0].add_note(str(other))
    return found[0]


def _error(status: WriterStatus) -> WriterFailedError:
    code = status.code or HResult.VSS_E_UNEXPECTED_WRITER_ERROR
    known = error_for(code, "GatherWriterStatus", status.name)
    said = report(status)
    error = WriterFailedError(
        f"VSS writer {status.name!r} failed in state {said.state}: {said.message}",
        writer=status.name,
        state=said.state,
        call="GatherWriterStatus",
        code=code,
        hint=known.hint,
    )
    if status.code:
        error.retryable, error.retry_after, error.retry_limit = (
            known.retryable,
            known.retry_after,
            known.retry_limit,
        )
    return error


def excluded_ids(excluded: Sequence[str | UUID], known: Sequence[WriterMetadata]) -> list[UUID]:
    """Class ids of the writers that shall not take part.

    Args:
        excluded: Names, and ids as text or as such.
        known: The writers there are; only names need them.

    Raises:
        UsageError: a name is no writer's.
    """
    by_name = {writer.name.casefold(): writer.writer_id for writer in known}
    found = []
    for item in excluded:
        value = as_id(item)
        if value is None:
            value = by_name.get(str(item).casefold())
        if value is None:
            raise UsageError(
                f"there is no VSS writer {item!r}",
                hint=f"this machine has {', '.join(sorted({writer.name for writer in known})) or 'none'}",
            )
        found.append(value)
    return found


def as_id(item: str | UUID) -> UUID | None:
    """An excluded writer as a class id, or None if it is a name."""
    if isinstance(item, UUID):
        return item
    try:
        return UUID(item)
    except (ValueError, AttributeError, TypeError):
        return None
