"""The program that freezes file systems, acts, and thaws them; run as a script, imports nothing of ours.

`vsssnap._posix.freezer` starts it ahead of time and talks to it over two pipes, a line a
message.  Its argument is the process id of its parent.  On standard input::

    sync FD                                   flush this file system before the freeze
    freeze FD                                 freeze this one, in the order given
    act FD REQUEST i ARGUMENT                 ioctl with a whole number
    act FD REQUEST b HEX                      ioctl with a buffer
    ioctls FIFREEZE FITHAW                    their numbers
    end                                       -> "ready" or "failed WHY"
    flush                                     -> "flushed ERRNO"
    go SECONDS                                -> the steps below, and "done ..."

On standard output, while it runs (ERRNO is 0 for success)::

    freezing N / frozen N ERRNO               announced first, so that the parent knows what may be frozen
    acted N ERRNO
    thawed N ERRNO
    done NANOSECONDS MICROSECONDS EXPIRED     CLOCK_REALTIME of the instant; how long frozen; 1 if cut short

Two threads: the worker makes the calls that may block; the main thread only watches.  It
thaws what is frozen as soon as the parent is gone (end of standard input, or another parent
process id: a child forked by the parent may hold the pipe open) or the time is up, even while
the worker hangs in a call that the freeze itself blocks.  Both take from one list, so each
file system is thawed once.  Everything is imported and locked in memory before "ready"; while
something is frozen nothing is opened, logged or started.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import sys
import threading
import time

assert sys.platform != "win32"  # noqa: S101 - mypy for win32 skips the rest

TICK = 100  # milliseconds between two looks at the parent and the clock
MCL_CURRENT, MCL_FUTURE = 1, 2  # <asm-generic/mman.h>


class Work:
    """The steps, and what is frozen now."""

    def __init__(self) -> None:
        self.syncs: list[int] = []
        self.freezes: list[int] = []
        self.acts: list[tuple[int, int, int | bytes]] = []
        self.fifreeze = self.fithaw = 0
        self.lock = threading.Lock()
        self.frozen: list[int] = []  # indexes into freezes
        self.stopped = False  # the watcher has taken over: undo, do nothing new
        self.began = 0.0  # time.monotonic() of the first freeze, 0 if there was none
        self.limit = 0.0
        self.library = ctypes.CDLL(None, use_errno=True)

    def add(self, words: list[str]) -> None:
        """Take one line of the job."""
        kind = words[0]
        if kind == "sync":
            self.syncs.append(int(words[1]))
        elif kind == "freeze":
            self.freezes.append(int(words[1]))
        elif kind == "act":
            argument = int(words[4]) if words[3] == "i" else bytes.fromhex(words[4])
            self.acts.append((int(words[1]), int(words[2]), argument))
        elif kind == "ioctls":
            self.fifreeze, self.fithaw = int(words[1]), int(words[2])
        else:
            raise ValueError(kind)

    def get_ready(self) -> None:
        """Leave nothing for later that could wait for a disk."""
        threading.stack_size(256 << 10)
        # Without the right to lock memory the freeze is still safe: what this program runs from is
        # never frozen, and reading is not blocked by a freeze.
        self.library.mlockall(MCL_CURRENT | MCL_FUTURE)
        self.library.syncfs.argtypes = [ctypes.c_int]
        try:
            descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
            os.write(descriptor, b"-1000")
            os.close(descriptor)
        except OSError:
            pass  # not privileged to ask for it

    def flush(self) -> None:
        """Write back what is dirty, so that the freeze has little to do."""
        error = 0
        for descriptor in self.syncs:
            if self.library.syncfs(descriptor):
                error = error or ctypes.get_errno()
        say(f"flushed {error}")

    def go(self) -> None:
        """Freeze, act, thaw."""
        self.began = time.monotonic()
        instant, expired = 0, True
        try:
            good = self.freeze()
            instant = time.clock_gettime_ns(time.CLOCK_REALTIME)
            if good:
                self.act()
            expired = self.stopped
        finally:
            self.thaw()
        # A watcher that thaws says so first; so if it had by now, the acts may not have been frozen.
        spent = int((time.monotonic() - self.began) * 1e6)
        say(f"done {instant} {spent} {int(expired or self.stopped)}")

    def freeze(self) -> bool:
        """Freeze all; whether it was done."""
        for index, descriptor in enumerate(self.freezes):
            if self.stopped:
                return False
            say(f"freezing {index}")
            error = call(descriptor, self.fifreeze, 0)
            if not error:
                with self.lock:
                    self.frozen.append(index)
            say(f"frozen {index} {error}")
            if error:
                return False
        return True

    def act(self) -> None:
        """Make the calls of the instant, up to the first that fails."""
        for index, (descriptor, request, argument) in enumerate(self.acts):
            if self.stopped:
                return
            error = call(descriptor, request, argument)
            say(f"acted {index} {error}")
            if error:
                return

    def thaw(self) -> None:
        """Thaw what is frozen, newest first; both threads may be in here."""
        while True:
            with self.lock:
                if not self.frozen:
                    return
                index = self.frozen.pop()
            say(f"thawed {index} {call(self.freezes[index], self.fithaw, 0)}")


def call(descriptor: int, request: int, argument: int | bytes) -> int:
    """Make an ioctl, without the interpreter's lock; the errno, 0 for success."""
    try:
        fcntl.ioctl(descriptor, request, argument)
    except OSError as exc:
        return exc.errno or 5
    return 0


def say(line: str) -> None:
    """Report to the parent; one that is gone is no reason to stop."""
    try:  # noqa: SIM105 - contextlib is one import more
        os.write(1, line.encode() + b"\n")
    except OSError:
        pass


def worker(work: Work, wake: threading.Semaphore, orders: list[str], idle: threading.Event) -> None:
    """Carry out orders, one at a time."""
    while True:
        wake.acquire()
        try:
            (work.go if orders.pop(0) == "go" else work.flush)()
        finally:
            idle.set()


def watch(work: Work, parent: int, idle: threading.Event) -> None:
    """Look at the parent and the clock, and give the parent's orders to the worker."""
    orders: list[str] = []
    wake = threading.Semaphore(0)
    poll = select.poll()
    poll.register(0, select.POLLIN)
    pending = b""
    while True:
        readable = poll.poll(TICK)
        data = os.read(0, 65536) if readable else b""
        if (readable and not data) or os.getppid() != parent:
            return
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            words = line.decode().split()
            if words[0] == "end":
                work.get_ready()
                threading.Thread(target=worker, args=(work, wake, orders, idle), daemon=True).start()
                say("ready")
            elif words[0] in ("go", "flush"):
                work.limit = float(words[1]) if words[0] == "go" else 0.0
                idle.clear()
                orders.append(words[0])
                wake.release()
            else:
                work.add(words)
        if work.limit and work.began and not work.stopped and time.monotonic() - work.began >= work.limit:
            work.stopped = True
            work.thaw()


def main() -> None:
    """Run as a script."""
    # A service manager that ends the whole group must not end the one who thaws; what ends this
    # program is the end of its parent.
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    work, idle = Work(), threading.Event()
    idle.set()
    try:
        watch(work, int(sys.argv[1]), idle)
    except Exception as exc:  # whatever it was, what is frozen has to be thawed below
        say(f"failed {type(exc).__name__}: {exc}".replace("\n", " "))
    # Leave only when the worker can freeze nothing any more: a freeze that is under way cannot be
    # called back, and is undone by the worker itself as soon as it has come about.
    work.stopped = True
    work.thaw()
    while not idle.wait(TICK / 1000):
        work.thaw()
    os._exit(0)


if __name__ == "__main__":
    main()
