"""Waiting for an `IVssAsync`.

`Wait` returning S_OK says only that waiting ended; what became of the operation is what
`QueryStatus` reports (vss.h documentation, IVssAsync::Wait and ::QueryStatus).  An operation that
is late or not wanted any more is told to stop and then *drained*: an object that is released while
an operation of it is pending leaves VSS busy for every requester on the machine.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from vsssnap._win32._ffi import ffi
from vsssnap._win32.com import check
from vsssnap._win32.failures import error_for
from vsssnap._win32.hresult import HResult, failed, name_of, signed, unsigned
from vsssnap.errors import CancelledError, SnapshotError, SnapshotTimeoutError

if TYPE_CHECKING:
    from vsssnap._deadline import Deadline
    from vsssnap._win32.com import Reference
    from vsssnap._win32.protocols import IVssAsync

_log = logging.getLogger("vsssnap.vss")

SLICE = 0.2  # seconds: the longest that a cancelled wait goes on
_UNSEEN = signed(HResult.E_UNEXPECTED)  # what QueryStatus must overwrite; 0 would read as success


def wait(operation: Reference, deadline: Deadline, step: str) -> None:
    """Wait until an operation is done; owns ``operation`` and releases it when nothing is pending.

    Draining takes as long as VSS takes: call it where nobody has to wait for that.

    Args:
        operation: The `IVssAsync` that the call gave.
        deadline: When to stop it; `Deadline.cancel` does so within half a second.
        step: The call's name.

    Raises:
        SnapshotTimeoutError, CancelledError: it was stopped, and has stopped.
        SnapshotError: it failed; the subclass and ``hint`` follow from its HRESULT.
    """
    with operation:
        pointer = operation.pointer
        stopped: SnapshotError | None = None
        waited, outcome = _look(pointer, _slice(deadline))
        while outcome == HResult.VSS_S_ASYNC_PENDING:
            if stopped is None and failed(waited):
                stopped = _stop(pointer, step, error_for(waited, f"{step}: IVssAsync::Wait"))
            elif stopped is None:
                try:
                    deadline.check(step)
                except (CancelledError, SnapshotTimeoutError) as exc:
                    stopped = _stop(pointer, step, exc)
            if failed(waited):  # a Wait that does not wait; what it is about may end all the same
                time.sleep(SLICE)
            waited, outcome = _look(pointer, SLICE if stopped else _slice(deadline))
        if stopped is not None:
            _log.debug("%s: stopped, and ended as %s", step, name_of(outcome))
            raise stopped
        check(waited, f"{step}: IVssAsync::Wait")
        if outcome == HResult.VSS_S_ASYNC_CANCELLED:
            raise error_for(outcome, step)
        check(outcome, step)


def watch(operation: Reference, deadline: Deadline, step: str) -> None:
    """Wait for an operation that nothing stops, and that goes on when nobody waits; see `wait`.

    Source: IVssBackupComponents::QueryRevertStatus, remarks.

    Raises:
        SnapshotTimeoutError, CancelledError: the time is over; the operation goes on.
        SnapshotError: it failed.
    """
    with operation:
        while True:
            waited, outcome = _look(operation.pointer, _slice(deadline))
            check(waited, f"{step}: IVssAsync::Wait")
            if outcome != HResult.VSS_S_ASYNC_PENDING:
                check(outcome, step)
                return
            deadline.check(step)


def _slice(deadline: Deadline) -> float:
    return max(0.001, min(SLICE, deadline.left()))


def _look(pointer: IVssAsync, seconds: float) -> tuple[int, int]:
    """Wait a little; what Wait said, and what has become of the operation."""
    waited = unsigned(pointer.lpVtbl.Wait(pointer, int(seconds * 1000) or 1))
    result = ffi.new("HRESULT *", _UNSEEN)
    asked = unsigned(pointer.lpVtbl.QueryStatus(pointer, result, ffi.NULL))
    return waited, asked if failed(asked) else unsigned(result[0])


def _stop(pointer: IVssAsync, step: str, why: SnapshotError) -> SnapshotError:
    code = unsigned(pointer.lpVtbl.Cancel(pointer))
    if failed(code):
        why.add_note(f"{step}: IVssAsync::Cancel failed with {name_of(code)}; waited for it to end")
    return why
