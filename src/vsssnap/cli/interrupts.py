"""Ctrl-C and SIGTERM, turned into an orderly way out.

The first signal normally raises `Interrupted` where the program stands.  Inside a `deferred`
block it does not: there it is only noted, whatever can be cancelled is cancelled, and the
block's own steps look at `check`.  So an exception never falls between taking a resource and
writing down that it must be given back.  A second signal raises even there, in case a step
hangs; while the way out runs, it only says so, and one more ends the process at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from types import FrameType

T = TypeVar("T")

_BRIEFLY = 0.5  # seconds that a read is waited for after a signal

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to end.

    Attributes:
        number: Which one.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


class _State:
    def __init__(self) -> None:
        self.pending = 0  # the first signal's number
        self.raised = False
        self.warned = False
        self.depth = 0
        self.left: set[int] = set()  # the threads that are no longer waited for
        self.wake: list[int] = []  # the writing ends of the pipes to those who cancel


_state = _State()


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Handle the signals inside the block; a signal that is ignored (nohup, a shell's &) stays so."""
    global _state
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state = _State()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    taken = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    try:
        for number in taken:
            signal.signal(number, _handle)
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number] or signal.SIG_DFL)


def _handle(number: int, _frame: FrameType | None) -> None:
    state = _state
    if state.warned:
        os._exit(128 + number)
    if state.raised:
        state.warned = True
        with contextlib.suppress(OSError):
            os.write(2, b"\nstill cleaning up; once more to leave everything as it is\n")
        return
    if not state.pending and state.depth:
        state.pending = number
        for pipe in state.wake:
            os.write(pipe, b"!")
        return
    state.pending = state.pending or number
    state.raised = True
    raise Interrupted(state.pending)


def check() -> None:
    """Raise `Interrupted` if a signal came during a `deferred` block."""
    if threading.get_ident() in _state.left:
        raise Interrupted(_state.pending)
    if _state.pending and not _state.raised:
        _state.raised = True
        raise Interrupted(_state.pending)


def pending() -> int:
    """The number of the first signal that came, or 0."""
    return _state.pending


def aside(work: Callable[[], T]) -> T:
    """Do what only reads in a thread of its own, so that one signal ends it although a read does not return.

    Args:
        work: Leaves nothing behind that must be given back; `check` ends it when nobody waits any more.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    # Neither `join`, after which Python takes the thread for ended if a signal interrupts it (3.11 and 3.12),
    # nor an Event, whose own lock a signal may leave taken.
    at_work = threading.Lock()
    at_work.acquire()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as exc:
            errors.append(exc)
        finally:
            at_work.release()

    thread = threading.Thread(target=run, name="vsssnap-read", daemon=True)
    started = True
    try:
        try:
            thread.start()
        except RuntimeError:  # "can't start new thread"
            started = False
        while started and not at_work.acquire(timeout=0.05):
            check()
    except BaseException as exc:
        _state.left.add(thread.ident or 0)
        at_work.acquire(timeout=_BRIEFLY)
        if not results and not errors:
            exc.add_note(
                "a read has not come back; where the disk does not answer (state D in ps), the system keeps"
                " the process until it does"
            )
        raise
    if not started:
        return work()
    thread.join()
    if errors:
        raise errors.pop()
    return results.pop()


@contextlib.contextmanager
def deferred(cancel: Callable[[], None] | None = None) -> Iterator[None]:
    """Let signals wait for the next `check` inside the block.

    Args:
        cancel: Ends what the block waits for; called in a thread of its own, because a signal
            handler that takes a lock may find the code that it interrupted holding it.
    """
    state = _state
    with contextlib.ExitStack() as stack:
        if cancel is not None:
            stack.enter_context(_canceller(state, cancel))
        state.depth += 1
        try:
            yield
        finally:
            state.depth -= 1


@contextlib.contextmanager
def _canceller(state: _State, cancel: Callable[[], None]) -> Iterator[None]:
    reader, writer = os.pipe()

    def wait() -> None:
        if os.read(reader, 1):  # nothing is read when the block ends without a signal
            cancel()

    thread = threading.Thread(target=wait, name="vsssnap-cancel", daemon=True)
    thread.start()
    state.wake.append(writer)
    try:
        yield
    finally:
        state.wake.remove(writer)
        os.close(writer)
        thread.join()
        os.close(reader)
