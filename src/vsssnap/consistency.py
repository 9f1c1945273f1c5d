"""How consistent a snapshot is."""

from __future__ import annotations

import enum

from vsssnap.errors import UsageError

__all__ = ["Consistency"]


class Consistency(enum.IntEnum):
    """What an image promises, weakest first.

    Members compare: ``Consistency.CRASH < Consistency.APPLICATION``.
    """

    CRASH = 1
    """Every block as it was at one instant, as after a power cut."""
    FILESYSTEM = 2
    """The file system was flushed and frozen at that instant: no journal replay is needed."""
    APPLICATION = 3
    """Applications flushed first (VSS writers all healthy; every quiesce manager declares it)."""

    def __str__(self) -> str:
        return self.name


def level_of(value: int) -> Consistency:
    """A level that a caller requires.

    Raises:
        UsageError: it is none.
    """
    try:
        return Consistency(value)
    except ValueError:
        raise UsageError(f"require is {value!r}", hint="use a member of vsssnap.Consistency") from None
