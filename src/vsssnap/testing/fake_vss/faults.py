"""What goes wrong on a fake machine, and how long things take."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Literal

from vsssnap.errors import UsageError

Where = Literal["call", "async", "wait"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How one operation goes.

    Attributes:
        seconds: How long it takes.
        code: What it ends as, or None for what the rules say.
        deaf: Seconds that it goes on after it was cancelled; None if it stops at once.
        silent: Whether only QueryStatus tells of a failure, and Wait does not.
    """

    seconds: float = 0.0
    code: int | None = None
    deaf: float | None = None
    silent: bool = False


@dataclass(slots=True)
class _Failure:
    call: str
    code: int
    where: Where
    times: float
    skip: int
    silent: bool
    fired: int = 0


@dataclass(slots=True)
class _Delay:
    call: str
    seconds: float
    deaf: float | None


class FakeFaults:
    """Failures and delays to order, by the name of the call."""

    def __init__(self) -> None:
        self._failures: list[_Failure] = []
        self._delays: list[_Delay] = []
        self._lock = threading.Lock()

    def fail(
        self,
        call: str,
        code: int,
        *,
        where: Where = "call",
        times: float = 1,
        skip: int = 0,
        silent: bool = True,
    ) -> None:
        """Have a call fail.

        Args:
            call: Name of the method (``"DoSnapshotSet"``).
            code: Unsigned HRESULT.
            where: The call itself, the operation that it begins, or the waiting for that.
            times: How often; `math.inf` for always.
            skip: How often it succeeds before.
            silent: Of an operation: only QueryStatus tells, and Wait returns S_OK.

        Raises:
            UsageError: ``code`` is not an unsigned number of 32 bits, or ``where`` is unknown.
        """
        if not 0 <= code <= 0xFFFF_FFFF or where not in ("call", "async", "wait"):
            raise UsageError(f"{call} cannot fail with {code!r} in its {where!r}")
        with self._lock:
            self._failures.append(_Failure(call, code, where, times, skip, silent))

    def delay(self, call: str, seconds: float = math.inf, *, deaf: float | None = None) -> None:
        """Have an operation take its time.

        Args:
            call: Name of the method that begins it; of devices ``"CreateFileW"``, ``"ReadFile"``,
                ``"WriteFile"``, ``"FlushFileBuffers"``, each control (``"FSCTL_GET_VOLUME_BITMAP"``), and
                what asks for names of volumes, file systems and folders (``"GetVolumeInformationW"``).
            seconds: How long; for ever by default.
            deaf: Seconds that it goes on after `IVssAsync.Cancel` or CancelIoEx; None for one that
                stops at once.
        """
        with self._lock:
            self._delays.append(_Delay(call, seconds, deaf))

    def code(self, call: str, where: Where) -> int | None:
        """What a call fails with now, or None."""
        found = self._take(call, where)
        return None if found is None else found.code

    def plan(self, call: str) -> Plan:
        """How an operation that begins now goes."""
        failure = self._take(call, "async")
        with self._lock:
            delay = next((known for known in self._delays if known.call == call), None)
        return Plan(
            seconds=delay.seconds if delay else 0.0,
            deaf=delay.deaf if delay else None,
            code=failure.code if failure else None,
            silent=failure.silent if failure else False,
        )

    def unused(self) -> list[str]:
        """Failures that were ordered and never happened."""
        with self._lock:
            return [f"{known.call} ({known.where})" for known in self._failures if not known.fired]

    def _take(self, call: str, where: Where) -> _Failure | None:
        with self._lock:
            for known in self._failures:
                if known.call == call and known.where == where and known.times > known.fired:
                    if known.skip:
                        known.skip -= 1
                        return None
                    known.fired += 1
                    return known
        return None
