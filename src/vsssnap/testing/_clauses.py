"""How the contract checks say what is broken."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, TypeVar

from vsssnap.errors import VssSnapError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ErrorT = TypeVar("ErrorT", bound=BaseException)


class Clauses:
    """The clauses of one contract, held against one thing.

    Plain ``if`` and ``raise``, so that the checks also hold under ``python -O``.
    """

    def __init__(self, what: str) -> None:
        """Name the thing.

        Args:
            what: Begins every message (``"BytesReader"``).
        """
        self.what = what

    def broken(self, clause: str, seen: str = "") -> NoReturn:
        """Raise AssertionError naming the clause, and what was seen instead."""
        raise AssertionError(f"{self.what}: {clause}" + (f"; {seen}" if seen else ""))

    def require(self, holds: bool, clause: str, seen: str = "") -> None:
        """Raise unless ``holds``."""
        if not holds:
            self.broken(clause, seen)

    def same(self, actual: bytes | memoryview, expected: bytes, clause: str, where: str) -> None:
        """Raise unless the bytes are equal; says where the first difference is, never the bytes."""
        if len(actual) != len(expected):
            self.broken(clause, f"{where} gave {len(actual)} bytes, not {len(expected)}")
        if actual != expected:
            at = next(n for n, (x, y) in enumerate(zip(actual, expected, strict=True)) if x != y)
            self.broken(clause, f"{where} differs first at byte {at} of {len(expected)}")

    def raises(
        self,
        kinds: type[ErrorT] | tuple[type[ErrorT], ...],
        call: Callable[[], object],
        clause: str,
        where: str,
    ) -> ErrorT:
        """Raise unless ``call`` raises one of ``kinds``; gives the error."""
        wanted = kinds if isinstance(kinds, tuple) else (kinds,)
        try:
            result = call()
        except wanted as exc:
            return exc
        except Exception as exc:
            names = " or ".join(kind.__name__ for kind in wanted)
            raise AssertionError(
                f"{self.what}: {clause}; {where} raised {type(exc).__name__} ({exc}), not {names}"
            ) from exc
        return self.broken(clause, f"{where} gave {type(result).__name__} and raised nothing")

    @contextmanager
    def during(self, where: str) -> Iterator[None]:
        """Turn whatever is raised in here into an AssertionError: nothing may be."""
        try:
            yield
        except (AssertionError, MemoryError):
            raise
        except Exception as exc:
            raise AssertionError(
                f"{self.what}: nothing is raised but what the contract says; {where} raised"
                f" {type(exc).__name__}: {exc}"
            ) from exc

    def allows(self, call: Callable[[], object], clause: str, where: str) -> VssSnapError | None:
        """Run ``call``, which may raise what the library raises and nothing else; gives the error."""
        try:
            call()
        except VssSnapError as exc:
            return exc
        except MemoryError:
            raise
        except Exception as exc:
            raise AssertionError(
                f"{self.what}: {clause}; {where} raised {type(exc).__name__}: {exc}"
            ) from exc
        return None


_STARTING = 60.0  # seconds for the system to start some threads, which is not what is being checked


def run_threads(calls: list[Callable[[], object]], timeout: float) -> list[BaseException | None]:
    """Run all calls at once, each in a thread of its own; gives what each raised.

    Raises:
        AssertionError: one has not ended after ``timeout`` seconds.
    """
    raised: list[BaseException | None] = [None] * len(calls)
    start = threading.Barrier(len(calls))

    def run(number: int) -> None:
        try:
            start.wait(max(timeout, _STARTING))
            calls[number]()
        except BaseException as exc:
            raised[number] = exc

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
        if thread.is_alive():
            raise AssertionError(f"a call has not ended after {timeout:g} s")
    return raised
