"""The steps of a snapshot, as its owner sees them."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vsssnap.providers.base import Provider

_log = logging.getLogger("vsssnap.snapshot")


@dataclass(frozen=True, slots=True)
class SnapshotEvent:
    """A step of a snapshot, for the ``on_event`` callback.

    Attributes:
        step: ``"probe"``, ``"prepare"``, ``"quiesce"``, ``"take"``, ``"resume"``, ``"ready"``,
            ``"busy"`` or ``"release"``; or one that the provider took within these, with the
            provider's name: ``"vss.do_snapshot_set"``.
        seconds: Since `Snapshot.create` began, or since `Snapshot.close` did.
        detail: More, for people; never a volume's content.
        lasted: Seconds that a step of the provider took; None for the others.
        code: How it ended: 0, or the number of its error (an HRESULT as unsigned 32 bits); None
            for the others, and for an error that has no number.
    """

    step: str
    seconds: float
    detail: str = ""
    lasted: float | None = None
    code: int | None = None


class Events:
    """Tells the owner of a snapshot what is done."""

    def __init__(self, names: Iterable[str], listener: Callable[[SnapshotEvent], None] | None) -> None:
        """Begin the time now.

        Args:
            names: The volumes, for the log.
            listener: Called at each step; what it raises comes through.
        """
        self._names = ", ".join(names)
        self._listener = listener
        self.begin()

    def begin(self) -> None:
        """Let the time of events begin now."""
        self._started = time.monotonic()

    def tell(self, step: str, detail: str = "", lasted: float | None = None, code: int | None = None) -> None:
        """Tell of a step."""
        event = SnapshotEvent(step, time.monotonic() - self._started, detail, lasted, code)
        if lasted is None:  # a provider logs its own
            _log.info("%s: %s %s", self._names, step, detail)
        if self._listener is not None:
            self._listener(event)

    def steps(self, provider: Provider) -> None:
        """Tell what a provider did since it was last asked."""
        for step in provider.steps():
            self.tell(f"{provider.name}.{step.name}", step.detail, step.seconds, step.code)
