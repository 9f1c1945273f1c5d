"""What a fake machine has given out and not got back, and what was done that is forbidden."""

from __future__ import annotations

import threading
import traceback
from collections import Counter
from typing import Any


class Ledger:
    """Counts of everything that must be given back; thread-safe.

    Attributes:
        violations: What the documentation forbids and the code under test did, a sentence each.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._counts: Counter[str] = Counter()
        self._memory: dict[int, tuple[str, Any, int]] = {}
        self._buried: list[Any] = []
        self.violations: list[str] = []

    def forbid(self, what: str) -> None:
        """Note a violation."""
        with self._lock:
            self.violations.append(what)

    def broke(self, where: str) -> None:
        """Note that the fake itself failed with the exception being handled."""
        self.forbid(f"{where} raised: {traceback.format_exc(limit=-4)}")

    def add(self, kind: str, by: int = 1) -> None:
        """One more (or fewer) of a kind is out."""
        with self._lock:
            self._counts[kind] += by
            if self._counts[kind] < 0:
                self.violations.append(f"more {kind} were given back than were given out")

    def lend(self, kind: str, address: int, memory: Any, length: int = 0) -> None:  # noqa: ANN401 - cffi's
        """Memory that was given out; it is kept alive for good, so that a late use is seen, not felt."""
        with self._lock:
            self._memory[address] = (kind, memory, length)
            self._counts[kind] += 1

    def length(self, kind: str, address: int) -> int:
        """What was noted with memory that is out."""
        with self._lock:
            found = self._memory.get(address)
            if found is None or found[0] != kind:
                self.violations.append(f"{kind} at {address:#x} is none that is out")
                return 0
            return found[2]

    def take_back(self, kind: str, address: int) -> None:
        """Memory that comes back, by the right function, once."""
        with self._lock:
            found = self._memory.pop(address, None)
            if found is None:
                self.violations.append(f"{kind} at {address:#x} was freed though none is out there")
                return
            self._buried.append(found)
            self._counts[found[0]] -= 1
            if found[0] != kind:
                self.violations.append(f"{found[0]} was freed as {kind}")

    def outstanding(self) -> dict[str, int]:
        """What is out, by kind; empty if nothing is."""
        with self._lock:
            return {kind: count for kind, count in sorted(self._counts.items()) if count}
