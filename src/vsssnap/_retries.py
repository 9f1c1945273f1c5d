"""When to try something again that failed, as its error says."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vsssnap._deadline import Deadline
    from vsssnap.errors import VssSnapError

_FIRST, _MOST = 0.5, 10.0  # seconds between two tries, rising; for errors that name no pause of their own

_NAMED = 5  # different failures that an error tells of


class Retries:
    """Counts the tries of one operation."""

    def __init__(self) -> None:
        self._failed: Counter[int | None] = Counter()
        self._before: Counter[str] = Counter()

    def pause(self, exc: VssSnapError, deadline: Deadline) -> float:
        """Count a failure and give the seconds to wait before the next try; raise it if there is none.

        Each pause is about twice as long as the one before, and at least what the error asks for.

        Raises:
            VssSnapError: ``exc``, as it is not retryable, was met too often, or there is no time left; its
                notes tell what the tries before it failed with, if that was something else.
        """
        if not exc.retryable:
            raise self._told(exc)
        self._failed[exc.code] += 1
        tries = self._failed.total()
        if exc.retry_limit and self._failed[exc.code] > exc.retry_limit:
            exc.add_note(f"tried {tries} times")
            raise self._told(exc)
        first = max(_FIRST, exc.retry_after)
        wait = min(first * 2.0 ** min(tries - 1, 16), max(_MOST, exc.retry_after * 8))
        wait *= random.uniform(0.5, 1.5)  # noqa: S311 - so that two waiters do not meet for ever
        if deadline.left() <= wait:
            exc.add_note(f"tried {tries} times within {deadline.seconds:g} s")
            raise self._told(exc)
        self._before[str(exc)] += 1
        return wait

    def _told(self, exc: VssSnapError) -> VssSnapError:
        for text, count in self._before.most_common(_NAMED):
            if text != str(exc):
                exc.add_note(f"a try before failed: {text}" + (f" ({count} times)" if count > 1 else ""))
        return exc
