"""Scenes with the strict vssapi.dll of the Wine lab, for programs that run under its Windows Python.

One process runs all scenes of a program, several times over; of each is told what the caller got, which calls
the library got, and what is left.  Devices are not a part of this: what a shadow copy holds is made up.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from vsssnap import Snapshot, _deadline, _retries
from vsssnap._win32 import failures
from vsssnap.errors import VssSnapError
from vsssnap.providers import SnapshotVolume
from vsssnap.providers.vss.provider import VssProvider
from waiting import Late, until

Scene = Callable[[], object]
CALL, OPERATION, WAITING = 0, 1, 2
EVER = 1000
OBJECTS, MEMORY, SHADOWS, BUSY, VIOLATIONS, HANDLES = range(6)
ROUNDS = 2

lab: Any = getattr(ctypes, "WinDLL")("vssapi.dll")  # noqa: B009 - types of Linux do not know it
lab.LabFail.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_int, ctypes.c_int)
lab.LabWriter.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_uint32, ctypes.c_int)
lab.LabHang.argtypes = (ctypes.c_char_p, ctypes.c_uint32)
lab.LabLeave.argtypes = (ctypes.c_char_p, ctypes.c_wchar_p)
lab.LabJournal.restype = lab.LabAsked.restype = ctypes.c_char_p


def fail(call: str, code: int, where: int = CALL, times: int = 1, skip: int = 0) -> None:
    lab.LabFail(call.encode(), where, code, times, skip)


def late(after: int = 1) -> None:
    """Have all limits of this scene be over once something has hung, or been busy, so often."""
    vars(_deadline)["time"] = Late(lambda: lab.LabStuck() >= after)


def take(*volumes: str, **arguments: Any) -> Snapshot:  # noqa: ANN401 - of Snapshot
    """A snapshot from its beginning to its end."""
    with Snapshot(*(volumes or ("C:",)), **arguments) as s:
        pass
    return s


def run(scene: Scene) -> dict[str, Any]:
    """One scene: what came of it, what was called, what is left."""
    lab.LabReset()
    before = lab.LabLeft(MEMORY)
    found: dict[str, Any] = {"error": "", "code": None, "notes": [], "result": None}
    started = time.monotonic()
    try:
        result = scene()
        found["result"] = None if isinstance(result, Snapshot) else result
    except (VssSnapError, ZeroDivisionError) as exc:
        found |= {"error": type(exc).__name__, "code": getattr(exc, "code", None)}
        found["notes"] = list(getattr(exc, "__notes__", ()))
    finally:
        vars(_deadline)["time"] = time
    found["seconds"] = time.monotonic() - started
    found["calls"] = lab.LabJournal().decode().splitlines()
    found["left"] = {
        "objects": lab.LabLeft(OBJECTS),
        "memory": lab.LabLeft(MEMORY) - before,
        "shadow copies": lab.LabLeft(SHADOWS),
        "busy": lab.LabLeft(BUSY),
        "forbidden": lab.LabLeft(VIOLATIONS),
    }
    return found


def described(self: VssProvider, volume: str, notes: list[str]) -> SnapshotVolume:
    """The facts of a shadow copy, without its device."""
    del self, notes
    return SnapshotVolume(name=volume, device=volume, size=1 << 20)


def prepare() -> None:
    """Leave out what is not VSS itself: devices have a laboratory of their own, Wine has no service VSS."""
    logging.disable(logging.CRITICAL)
    failures.RETRY_PAUSE = _retries._FIRST = 0.01
    VssProvider._describe = described  # type: ignore[method-assign]
    VssProvider.unusable = lambda self: ""  # type: ignore[method-assign]


def play(scenes: dict[str, Scene]) -> dict[str, object]:
    """All scenes, `ROUNDS` times, and what is left of the process's own."""
    prepare()
    watched = bool(lab.LabWatch())
    handles, threads = [], []
    found: dict[str, Any] = {}
    for _ in range(ROUNDS):
        found = {name: run(scene) for name, scene in scenes.items()}
        until(lambda: threading.active_count() == 1)  # one that has done its work may not have ended yet
        gc.collect()  # Python's locks are handles, and an exception that was caught refers to its own frames
        handles.append(lab.LabLeft(HANDLES))
        threads.append(threading.active_count())
    with open(__file__, "rb"), open(__file__, "rb"), open(__file__, "rb"):
        seen = lab.LabLeft(HANDLES) - handles[-1]
    return {"watched": watched, "seen": seen, "handles": handles, "threads": threads, "scenes": found}
