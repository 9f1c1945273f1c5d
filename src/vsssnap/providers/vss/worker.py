"""The one thread that owns the COM objects of a snapshot, from the first call to the last Release.

Its apartment is the multithreaded one: a thread of a single-threaded apartment that does not pump
messages makes writers wait for minutes.  The host program's threads are never touched; they wait
for it in short slices, so that Ctrl-C and `Snapshot.cancel` come through, and they give up on it
when VSS hangs: the thread then ends what was begun by itself, whenever VSS lets it.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from vsssnap._win32 import com
from vsssnap._win32.hresult import name_of
from vsssnap.errors import CancelledError, ClosedError, SnapshotError, SnapshotTimeoutError

if TYPE_CHECKING:
    from vsssnap._deadline import Deadline
    from vsssnap._win32.dll import System

_log = logging.getLogger("vsssnap.vss")

_TICK = 0.1  # seconds between two looks at the deadline
_GRACE = 2.0  # seconds for a call that was told to stop


def set_security(system: System) -> int:
    """Set COM security for the process, if nobody has; the HRESULT, which is logged if it cannot be set."""
    code = com.initialize_security(system)
    if not com.security_is_usable(code):
        _log.warning("CoInitializeSecurity: %s; writers may not be able to call back", name_of(code))
    return code


class _Job:
    def __init__(self, run: Callable[[], None]) -> None:
        self.run = run
        self.done = threading.Event()
        self.error: BaseException | None = None


class Worker:
    """Runs calls on a thread of its own, one after the other.

    Attributes:
        hanging: Whether the last call was given up and goes on.
    """

    def __init__(self, system: System, name: str, *, secure: bool = True) -> None:
        """Start the thread.

        Args:
            system: The libraries.
            name: Of the thread.
            secure: Whether COM security is set for the process, if nobody has; else what is called does it.

        Raises:
            SnapshotError: there is no thread to be had.
        """
        self._system = system
        self._secure = secure
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._failed: BaseException | None = None
        self._stopped = False
        self._stopping = threading.Lock()
        self.hanging = False
        # A daemon, for the interpreter waits for all others before it runs what releases us.
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as exc:  # "can't start new thread", or the interpreter is ending
            raise SnapshotError(
                f"no thread for VSS can be started: {exc}", hint="end what has so many threads"
            ) from exc

    def _main(self) -> None:
        entered = False
        try:
            com.enter_apartment(self._system)
            entered = True
            if self._secure:  # before there is any object, or COM sets what keeps writers from calling back
                set_security(self._system)
        except BaseException as exc:  # nobody may wait for a thread that is not there
            self._failed = exc
        while (job := self._jobs.get()) is not None:
            try:
                if self._failed is None:
                    job.run()
                job.error = self._failed
            except BaseException as exc:  # it is raised again where the call came from
                job.error = exc
            job.done.set()
            del job  # what it refers to is not kept until the next one comes
        if entered:
            com.leave_apartment(self._system)

    def call(self, run: Callable[[], None], deadline: Deadline, step: str) -> None:
        """Run something on the thread and wait for it.

        Args:
            run: Looks at ``deadline`` itself where it waits.
            deadline: When to give up on it.
            step: What it is, for messages.

        On the thread itself it only is put behind what runs.

        Raises:
            SnapshotTimeoutError, CancelledError: it did not end in time; it goes on on the thread, and
                what is called next waits for it.
            ClosedError: the thread was told to end.
        """
        job = _Job(run)
        with self._stopping:
            if self._stopped:
                raise ClosedError(f"{step}: the shadow copy was released", hint="take a new snapshot")
            self._jobs.put(job)
        if threading.current_thread() is self._thread:
            # The collector runs on any thread, and on this one may find a snapshot that was forgotten.  Its
            # end comes after what runs now; nobody can wait for that here.
            self.hanging = True
            return
        give_up: float | None = None
        try:
            while not job.done.wait(_TICK):
                if give_up is not None and time.monotonic() >= give_up:
                    deadline.check(step)
                if give_up is None and (deadline.cancelled or not deadline.left()):
                    give_up = time.monotonic() + _GRACE
        except (CancelledError, SnapshotTimeoutError) as exc:
            self.hanging = True
            exc.add_note(f"VSS has not ended {step} yet; it is undone as soon as it does")
            _log.warning("%s: VSS does not end it; waiting for that goes on on %s", step, self._thread.name)
            raise
        except BaseException:  # Ctrl-C: stop what runs, and let it end if it does so soon
            deadline.cancel()
            self.hanging = not job.done.wait(_GRACE)
            raise
        self.hanging = False
        if job.error is not None:
            raise job.error

    def post(self, run: Callable[[], None]) -> None:
        """Have something run on the thread when it is free; nobody waits for it, or learns how it ended.

        Nothing happens once the thread was told to end.
        """
        with self._stopping:
            if not self._stopped:
                self._jobs.put(_Job(run))

    def stop(self) -> None:
        """End the thread after what was called; does not wait for it.  Idempotent."""
        with self._stopping:
            self._stopped = True
            self._jobs.put(None)

    def join(self, seconds: float) -> bool:
        """Wait for the end; False if it has not come."""
        self._thread.join(seconds)
        return not self._thread.is_alive()


_numbers = itertools.count(1)
_LAST = 5.0  # seconds for a thread that has nothing left to do


def start(system: System, *, secure: bool = True) -> Worker:
    """A worker with a name of its own; see `Worker`."""
    return Worker(system, f"vsssnap-vss-{next(_numbers)}", secure=secure)


def finish(worker: Worker) -> None:
    """End a worker; waits for the end unless VSS hangs, for then it comes when VSS lets it."""
    worker.stop()
    if not worker.hanging:
        worker.join(_LAST)


def run_once(system: System, run: Callable[[], None], deadline: Deadline, step: str) -> None:
    """Run something on a thread of its own in the multithreaded apartment; see `Worker.call`."""
    worker = start(system)
    try:
        worker.call(run, deadline, step)
    finally:
        finish(worker)
