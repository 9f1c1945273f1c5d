from __future__ import annotations

import pytest

from vsssnap._deadline import Deadline
from vsssnap._retries import Retries
from vsssnap.errors import SnapshotBusyError, SnapshotError


def passing(*, after: float = 0.0, limit: int = 0, code: int = 1) -> SnapshotError:
    error = SnapshotError("for the moment", code=code)
    error.retryable, error.retry_after, error.retry_limit = True, after, limit
    return error


def test_what_does_not_pass_is_raised() -> None:
    error = SnapshotError("for good")
    with pytest.raises(SnapshotError) as caught:
        Retries().pause(error, Deadline(100))
    assert caught.value is error


def test_pauses_rise_and_stay_bounded() -> None:
    retries = Retries()
    pauses = [retries.pause(SnapshotBusyError("busy"), Deadline(1e6)) for _ in range(12)]
    assert 0.25 <= pauses[0] <= 0.75
    assert all(5 <= pause <= 15 for pause in pauses[6:])


def test_an_error_names_its_least_pause() -> None:
    retries = Retries()
    pauses = [retries.pause(passing(after=30), Deadline(1e6)) for _ in range(3)]
    assert 15 <= pauses[0] <= 45
    assert 30 <= pauses[1] <= 90
    assert 60 <= pauses[2] <= 180


def test_a_limit_counts_for_each_code() -> None:
    retries = Retries()
    for code in (1, 2, 1):
        retries.pause(passing(limit=2, code=code), Deadline(1e6))
    with pytest.raises(SnapshotError) as caught:
        retries.pause(passing(limit=2, code=1), Deadline(1e6))
    assert caught.value.__notes__ == ["tried 4 times", "a try before failed: for the moment [error 2]"]


def test_no_time_is_no_try() -> None:
    with pytest.raises(SnapshotError) as caught:
        Retries().pause(passing(after=30), Deadline(5))
    assert caught.value.__notes__ == ["tried 1 times within 5 s"]


def test_what_the_tries_before_failed_with_is_told() -> None:
    retries = Retries()
    for message in ("busy", "slow", "busy"):
        retries.pause(SnapshotBusyError(message), Deadline(1e6))
    with pytest.raises(SnapshotError) as caught:
        retries.pause(SnapshotError("for good"), Deadline(1e6))
    assert caught.value.__notes__ == ["a try before failed: busy (2 times)", "a try before failed: slow"]


def test_the_same_failure_is_told_once() -> None:
    retries = Retries()
    retries.pause(SnapshotBusyError("busy"), Deadline(1e6))
    with pytest.raises(SnapshotError) as caught:
        retries.pause(SnapshotBusyError("busy"), Deadline(0.1))
    assert caught.value.__notes__ == ["tried 2 times within 0.1 s"]
