"""Waiting for operations, on a fake one."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from vsssnap._deadline import Deadline
from vsssnap._win32 import com
from vsssnap._win32._ffi import ffi
from vsssnap._win32.hresult import HResult
from vsssnap._win32.operations import wait
from vsssnap.errors import CancelledError, SnapshotError, SnapshotTimeoutError
from vsssnap.testing.fake_vss import FakeVss
from vsssnap.testing.fake_vss.objects import FakeAsync


@pytest.fixture
def vss(fake_vss: FakeVss) -> Iterator[FakeVss]:
    com.enter_apartment(fake_vss)
    yield fake_vss
    com.leave_apartment(fake_vss)


def begun(vss: FakeVss) -> com.Reference:
    out = ffi.new("IVssAsync **")
    FakeAsync(vss, "Step", lambda: None).give(out)
    return com.Reference(out[0])


def test_an_operation_that_ends_is_released(vss: FakeVss) -> None:
    vss.faults.delay("Step", 0.05)
    wait(begun(vss), Deadline(10), "Step")
    assert vss.ledger.outstanding() == {"apartments": 1}


@pytest.mark.parametrize("silent", [True, False])
def test_the_outcome_is_what_query_status_says(vss: FakeVss, silent: bool) -> None:
    vss.faults.delay("Step", 0.05)
    vss.faults.fail("Step", HResult.VSS_E_HOLD_WRITES_TIMEOUT, where="async", silent=silent)
    with pytest.raises(SnapshotError, match="HOLD_WRITES_TIMEOUT") as caught:
        wait(begun(vss), Deadline(10), "Step")
    assert caught.value.call.startswith("Step")
    assert vss.ledger.outstanding() == {"apartments": 1}


def test_what_is_cancelled_by_somebody_else_is_cancelled(vss: FakeVss) -> None:
    vss.faults.fail("Step", HResult.VSS_S_ASYNC_CANCELLED, where="async")
    with pytest.raises(CancelledError):
        wait(begun(vss), Deadline(10), "Step")


def test_one_that_is_late_is_cancelled_and_drained(vss: FakeVss) -> None:
    vss.faults.delay("Step", deaf=0.3)
    with pytest.raises(SnapshotTimeoutError):
        wait(begun(vss), Deadline(0.1), "Step")
    after = vss.calls[vss.calls.index("IVssAsync::Cancel") :]
    assert after.count("IVssAsync::Wait") >= 2
    assert vss.ledger.outstanding() == {"apartments": 1}


def test_a_wait_that_fails_while_it_is_pending_is_drained(vss: FakeVss) -> None:
    vss.faults.delay("Step")
    vss.faults.fail("Step", HResult.E_ACCESSDENIED, where="wait")
    with pytest.raises(SnapshotError) as caught:
        wait(begun(vss), Deadline(10), "Step")
    assert caught.value.code == HResult.E_ACCESSDENIED
    assert "IVssAsync::Cancel" in vss.calls


def test_a_wait_that_always_fails_is_not_asked_in_a_circle(vss: FakeVss) -> None:
    vss.faults.delay("Step", deaf=1.0)
    vss.faults.fail("Step", HResult.E_ACCESSDENIED, where="wait", times=math.inf)
    with pytest.raises(SnapshotError):
        wait(begun(vss), Deadline(10), "Step")
    assert vss.calls.count("IVssAsync::Wait") < 10


def test_a_cancel_that_fails_is_a_note(vss: FakeVss) -> None:
    vss.faults.delay("Step", 0.4)
    vss.faults.fail("Cancel", HResult.VSS_E_UNEXPECTED)
    with pytest.raises(SnapshotTimeoutError) as caught:
        wait(begun(vss), Deadline(0.1), "Step")
    assert "VSS_E_UNEXPECTED" in caught.value.__notes__[0]
