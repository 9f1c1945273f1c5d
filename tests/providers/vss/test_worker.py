from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast
from uuid import UUID

import pytest

from vsssnap import Snapshot, list_snapshots
from vsssnap._deadline import Deadline
from vsssnap._win32 import com
from vsssnap._win32.hresult import HResult
from vsssnap.errors import CancelledError, ClosedError, SnapshotError, SnapshotTimeoutError
from vsssnap.providers.vss import worker as module
from vsssnap.providers.vss.worker import Worker
from vsssnap.testing.fake_vss import FakeVss
from vsssnap.vss import (
    WriterRestore,
    list_components,
    list_providers,
    list_shadow_copies,
    list_writers,
    purge_orphans,
    shadow_storage,
)

if TYPE_CHECKING:
    from vsssnap.providers.vss.provider import VssProvider


@pytest.fixture
def worker(fake_vss: FakeVss) -> Worker:
    return Worker(fake_vss, "test-worker")


def waits(event: threading.Event) -> None:
    event.wait(120)


def end(worker: Worker) -> None:
    worker.stop()
    assert worker.join(120)


def test_calls_run_in_order_on_one_thread_of_its_own(worker: Worker) -> None:
    seen: list[int] = []
    for _ in range(5):
        worker.call(lambda: seen.append(threading.get_ident()), Deadline(120), "note")
    assert len(set(seen)) == 1
    assert seen[0] != threading.get_ident()
    end(worker)


def test_what_a_call_raises_is_raised_where_it_was_made(worker: Worker) -> None:
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda: [][0] if 1 / 0 else None, Deadline(120), "fail")
    end(worker)


def test_a_call_that_hangs_is_given_up_and_the_next_waits(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GRACE", 0.1)
    free, order = threading.Event(), []

    def hang() -> None:
        free.wait(120)
        order.append("hung")

    with pytest.raises(SnapshotTimeoutError) as caught:
        worker.call(hang, Deadline(0.1), "hang")
    assert "as soon as it does" in caught.value.__notes__[0]
    threading.Timer(0.1, free.set).start()
    worker.call(lambda: order.append("next"), Deadline(120), "next")
    assert order == ["hung", "next"]
    end(worker)


def test_cancel_is_noticed_within_half_a_second(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GRACE", 0.0)
    deadline, free = Deadline(100), threading.Event()
    threading.Timer(0.05, deadline.cancel).start()
    started = time.monotonic()
    with pytest.raises(CancelledError):
        worker.call(lambda: waits(free), deadline, "hang")
    assert time.monotonic() - started < 60  # a busy machine may be slow; a hang would take 120 s
    free.set()
    end(worker)


@pytest.mark.parametrize("error", [OSError("no such function"), AttributeError("CoInitializeEx")])
def test_a_thread_that_cannot_begin_says_so_at_once(
    fake_vss: FakeVss, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(com, "enter_apartment", fail)
    worker = Worker(fake_vss, "test-worker")
    for _ in range(2):
        with pytest.raises(type(error)):
            worker.call(lambda: None, Deadline(math.inf), "nothing")
    end(worker)


@pytest.mark.parametrize(
    ("volume", "said"), [("C:", "can't start new thread"), ("D:\\mounted", "no thread can be started")]
)
def test_no_thread_to_be_had_is_an_error_of_the_library(
    fake_vss: FakeVss, monkeypatch: pytest.MonkeyPatch, volume: str, said: str
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    fake_vss.add_volume("C:\\", "D:\\mounted\\")
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(SnapshotError, match=said) as caught:
        Snapshot(volume).create()
    assert "end what has so many threads" in str(caught.value)


def test_on_the_thread_itself_a_call_is_put_behind_what_runs(worker: Worker) -> None:
    order: list[str] = []

    def outer() -> None:
        worker.call(lambda: order.append("inner"), Deadline(10), "inner")
        order.append("outer")

    worker.call(outer, Deadline(20), "outer")
    worker.call(lambda: order.append("next"), Deadline(20), "next")
    assert order == ["outer", "inner", "next"]
    end(worker)


def test_a_snapshot_that_is_found_forgotten_on_its_own_thread_is_released(fake_vss: FakeVss) -> None:
    fake_vss.add_volume("C:\\")
    snapshot = Snapshot("C:")
    snapshot.create()
    held = snapshot._held
    assert held is not None
    provider = cast("VssProvider", held.provider)
    assert provider._worker is not None
    provider._worker.post(lambda: provider.release(Deadline(30)))
    until = time.monotonic() + 20
    while fake_vss.ledger.outstanding() and time.monotonic() < until:
        time.sleep(0.01)
    fake_vss.check()
    snapshot.close()


def test_a_call_after_the_end_is_refused_at_once(worker: Worker) -> None:
    end(worker)
    with pytest.raises(ClosedError, match="ask: the shadow copy was released"):
        worker.call(lambda: None, Deadline(math.inf), "ask")


@pytest.mark.parametrize(
    "ask",
    [
        list_writers,
        list_components,
        list_providers,
        shadow_storage,
        list_shadow_copies,
        purge_orphans,
        list_snapshots,
        lambda: Snapshot.attach(str(UUID(int=1)), provider="vss"),
        lambda: WriterRestore("<x/>").__enter__(),
    ],
)
def test_com_security_is_set_before_any_object_is_made(
    fake_vss: FakeVss, monkeypatch: pytest.MonkeyPatch, ask: Callable[[], object]
) -> None:
    made: list[bool] = []

    def noting(call: Callable[..., int]) -> Callable[..., int]:
        def noted(*arguments: object) -> int:
            made.append(fake_vss.security_set)
            return call(*arguments)

        return noted

    for library, name in (
        (fake_vss.ole32, "CoCreateInstance"),
        (fake_vss.vssapi, "CreateVssBackupComponentsInternal"),
    ):
        monkeypatch.setattr(library, name, noting(getattr(library, name)))
    with contextlib.suppress(SnapshotError):  # of what is not there
        ask()
    assert made
    assert all(made)


def test_com_security_that_cannot_be_set_is_logged(
    fake_vss: FakeVss, caplog: pytest.LogCaptureFixture
) -> None:
    fake_vss.faults.fail("CoInitializeSecurity", HResult.E_ACCESSDENIED)
    assert list_providers()
    assert "writers may not be able to call back" in caplog.text


def test_the_apartment_is_left_at_the_end(fake_vss: FakeVss, worker: Worker) -> None:
    worker.call(lambda: None, Deadline(120), "nothing")
    assert fake_vss.ledger.outstanding() == {"apartments": 1}
    end(worker)
    assert fake_vss.ledger.outstanding() == {}
