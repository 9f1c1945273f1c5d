"""Quiesce managers: what they declare, their order, and that every one is left."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vsssnap import _process
from vsssnap._deadline import Deadline
from vsssnap._quieted import Quieted, all_claim
from vsssnap.consistency import Consistency
from vsssnap.errors import CancelledError, QuiesceError, SnapshotTimeoutError, UsageError
from vsssnap.quiesce import claiming, run_commands, service_stopped


class Recorder:
    """A manager that writes down what happens to it."""

    def __init__(self, name: str, log: list[str], *, fails: str = "") -> None:
        self.name = name
        self.log = log
        self.fails = fails

    def __enter__(self) -> None:
        self.log.append(f"enter {self.name}")
        if self.fails == "enter":
            raise LookupError(self.name)

    def __exit__(self, *exc: object) -> None:
        self.log.append(f"leave {self.name}")
        if self.fails == "leave":
            raise LookupError(self.name)


def touch(path: Path) -> list[str]:
    return [sys.executable, "-c", f"open({str(path)!r}, 'a').write('x')"]


FAIL = [sys.executable, "-c", "raise SystemExit(1)"]


def test_managers_are_left_newest_first() -> None:
    log: list[str] = []
    with Quieted([Recorder("a", log), Recorder("b", log)], Deadline(10)):
        log.append("instant")
    assert log == ["enter a", "enter b", "instant", "leave b", "leave a"]


def test_a_manager_that_cannot_quiet_is_a_quiesce_error_and_the_earlier_ones_are_left() -> None:
    log: list[str] = []
    managers = [Recorder("a", log), Recorder("b", log, fails="enter"), Recorder("c", log)]
    with (
        pytest.raises(QuiesceError, match="Recorder failed to quiet its application: b") as caught,
        Quieted(managers, Deadline(10)),
    ):
        log.append("instant")
    assert isinstance(caught.value.__cause__, LookupError)
    assert log == ["enter a", "enter b", "leave a"]


def test_a_manager_that_fails_to_let_go_is_a_quiesce_error_and_the_others_are_left() -> None:
    log: list[str] = []
    managers = [Recorder("a", log), Recorder("b", log, fails="leave"), Recorder("c", log)]
    with (
        pytest.raises(QuiesceError, match="Recorder failed to let its application go: b") as caught,
        Quieted(managers, Deadline(10)),
    ):
        pass
    assert isinstance(caught.value.__cause__, LookupError)
    assert log[-3:] == ["leave c", "leave b", "leave a"]


def test_a_failure_to_let_go_is_a_note_on_the_error_that_is_under_way() -> None:
    log: list[str] = []
    with (
        pytest.raises(ZeroDivisionError) as caught,
        Quieted([Recorder("a", log, fails="leave")], Deadline(10)),
    ):
        raise ZeroDivisionError
    assert any("Recorder failed to let" in note for note in caught.value.__notes__)


def test_ctrl_c_at_the_instant_lets_everything_go() -> None:
    log: list[str] = []
    with pytest.raises(KeyboardInterrupt), Quieted([Recorder("a", log), Recorder("b", log)], Deadline(10)):
        raise KeyboardInterrupt
    assert log[-2:] == ["leave b", "leave a"]


def test_a_cancelled_snapshot_quiets_nothing_more() -> None:
    log: list[str] = []
    deadline = Deadline(10)
    deadline.cancel()
    with pytest.raises(CancelledError), Quieted([Recorder("a", log)], deadline):
        pass
    assert log == []


def test_only_unanimous_claims_count() -> None:
    log: list[str] = []
    plain = Recorder("a", log)
    sure = claiming(Recorder("b", log), claims=Consistency.APPLICATION)
    assert not all_claim([], Consistency.APPLICATION)
    assert not all_claim([sure, plain], Consistency.APPLICATION)
    assert all_claim([sure, service_stopped("db")], Consistency.APPLICATION)
    assert not all_claim([run_commands(before=["sync"])], Consistency.APPLICATION)
    assert all_claim([run_commands(before=["sync"], claims=Consistency.APPLICATION)], Consistency.APPLICATION)
    assert not all_claim([service_stopped("db", claims=None)], Consistency.APPLICATION)


def test_a_claiming_manager_is_entered_and_left() -> None:
    log: list[str] = []

    @contextlib.contextmanager
    def quiet() -> Iterator[None]:
        log.append("in")
        yield
        log.append("out")

    with Quieted([claiming(quiet(), claims=Consistency.APPLICATION)], Deadline(10)):
        assert log == ["in"]
    assert log == ["in", "out"]


def test_commands_run_before_and_after(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    with run_commands(before=touch(before), after=touch(after)):
        assert before.exists()
        assert not after.exists()
    assert after.exists()


def test_the_after_command_runs_when_before_failed(tmp_path: Path) -> None:
    after = tmp_path / "after"
    with pytest.raises(QuiesceError, match="status 1"), run_commands(before=FAIL, after=touch(after)):
        pass
    assert after.read_text() == "x"


def test_a_failed_after_command_does_not_hide_the_failed_before() -> None:
    with pytest.raises(QuiesceError) as caught, run_commands(before=FAIL, after=["no-such-program"]):
        pass
    assert any("no-such-program" in note for note in caught.value.__notes__)


def test_a_late_command_ends_with_the_snapshots_budget() -> None:
    manager = run_commands(before=[sys.executable, "-c", "import time; time.sleep(60)"], timeout=60)
    with pytest.raises(SnapshotTimeoutError), Quieted([manager], Deadline(0.3)):
        pass


@pytest.mark.parametrize(
    "kwargs", [{}, {"before": "sync"}, {"before": [1]}, {"before": ["sync"], "timeout": 0}]
)
def test_what_cannot_be_run_is_refused_at_once(kwargs: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        run_commands(**kwargs)  # type: ignore[arg-type]  # wrong on purpose


class FakeService(_process.Service):
    """A service whose state is a list of what happened."""

    def __init__(self, *, up: bool, stop_fails: bool = False) -> None:
        super().__init__("db")
        self.up = up
        self.stop_fails = stop_fails
        self.log: list[str] = []

    def running(self, deadline: Deadline) -> bool:
        return self.up

    def stop(self, deadline: Deadline) -> None:
        self.log.append("stop")
        self.up = False
        if self.stop_fails:
            raise QuiesceError("stopping hung")

    def start(self, deadline: Deadline) -> None:
        self.log.append("start")
        self.up = True


def stopped(monkeypatch: pytest.MonkeyPatch, service: FakeService) -> contextlib.AbstractContextManager[None]:
    monkeypatch.setattr(_process, "Service", lambda _: service)
    return service_stopped("db")


def test_a_running_service_is_stopped_and_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    service = FakeService(up=True)
    with stopped(monkeypatch, service):
        assert service.log == ["stop"]
    assert service.log == ["stop", "start"]


def test_a_service_that_did_not_run_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    service = FakeService(up=False)
    with stopped(monkeypatch, service):
        pass
    assert service.log == []


def test_a_service_whose_stop_failed_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    service = FakeService(up=True, stop_fails=True)
    with pytest.raises(QuiesceError, match="stopping hung"), stopped(monkeypatch, service):
        pass
    assert service.log == ["stop", "start"]
