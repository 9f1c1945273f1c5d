from __future__ import annotations

import pickle

import pytest

from vsssnap._win32 import hresult
from vsssnap._win32.failures import FACTS, Retry, error_for, fact
from vsssnap._win32.hresult import HResult, name_of
from vsssnap.errors import (
    CancelledError,
    InsufficientStorageError,
    ProviderUnavailableError,
    SnapshotBusyError,
    SnapshotError,
    SnapshotPermissionError,
    WriterFailedError,
)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0x80070005, SnapshotPermissionError),
        (0x80042316, SnapshotBusyError),
        (0x80042313, SnapshotBusyError),
        (0x8004230C, ProviderUnavailableError),
        (0x80042308, ProviderUnavailableError),
        (0x8004231F, InsufficientStorageError),
        (0x80042317, InsufficientStorageError),
        (0x800423F4, WriterFailedError),
        (0x0004230B, CancelledError),
        (0x80042301, SnapshotError),
    ],
)
def test_a_code_is_raised_as_what_the_caller_can_do(code: int, kind: type[SnapshotError]) -> None:
    error = error_for(code, "DoSnapshotSet", "C:\\")
    assert type(error) is kind
    assert error.code == code
    assert error.call == "DoSnapshotSet"
    assert error.hint or kind is CancelledError
    assert "C:\\" in error.message


def test_an_unknown_code_keeps_its_number() -> None:
    error = error_for(0x80301234, "DoSnapshotSet")
    assert type(error) is SnapshotError
    assert "0x80301234" in str(error)
    assert not error.retryable


@pytest.mark.parametrize(
    "code", [0x80042313, 0x80042314, 0x80042306, 0x8004230F, 0x800423F1, 0x800423F2, 0x800423F3]
)
def test_what_microsoft_says_to_retry_three_times_is_retryable(code: int) -> None:
    # IVssBackupComponents::DoSnapshotSet and ::GetWriterStatus, remarks.
    error = error_for(code, "DoSnapshotSet")
    assert error.retryable
    assert error.retry_limit == 3
    assert error.retry_after > 0


def test_a_busy_set_is_retried_without_limit() -> None:
    assert fact(0x80042316).retry is Retry.SAME
    error = error_for(0x80042316, "StartSnapshotSet")
    assert error.retryable
    assert error.retry_limit == 0


def test_retry_advice_survives_pickle() -> None:
    error = pickle.loads(pickle.dumps(error_for(0x80042306, "DoSnapshotSet")))  # noqa: S301 - our own
    assert (error.retryable, error.retry_limit) == (True, 3)


def test_every_fact_is_a_sentence_with_a_remedy() -> None:
    for code, known in FACTS.items():
        assert known.meaning, code
        assert not known.meaning.endswith("."), code
        assert known.hint or known.error is CancelledError, code  # who cancelled knows


def test_names_and_numbers() -> None:
    assert name_of(0x80042308) == "VSS_E_OBJECT_NOT_FOUND"
    assert name_of(0xDEADBEEF) == "0xDEADBEEF"
    assert hresult.unsigned(-2147212536) == 0x80042308
    assert hresult.signed(0x80042308) == -2147212536
    assert hresult.signed(0x0004230A) == 0x0004230A
    assert hresult.failed(HResult.VSS_E_BAD_STATE)
    assert not hresult.failed(HResult.VSS_S_ASYNC_PENDING)
