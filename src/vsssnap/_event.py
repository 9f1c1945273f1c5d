"""The steps of a snapshot, as its owner sees them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SnapshotEvent:
    """A step of a snapshot, for the ``on_event`` callback.

    Attributes:
        step: ``"probe"``, ``"prepare"``, ``"quiesce"``, ``"take"``, ``"resume"``, ``"ready"``,
            ``"busy"`` or ``"release"``.
        seconds: Since `Snapshot.create` began, or since `Snapshot.close` did.
        detail: More, for people; never a volume's content.
    """

    step: str
    seconds: float
    detail: str = ""
