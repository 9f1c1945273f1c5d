"""What the story is told about: a volume, an application that writes it, and a look at copies of it."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vsssnap.cli import interrupts
from vsssnap.cli.common import CommandFailedError

if TYPE_CHECKING:
    from vsssnap.quiesce import QuiesceManager

COMMITS = 25  # that go by while the naive copier stands still
PIECE = 1 << 20  # bytes that it copies at once
_PATIENCE = 60.0  # seconds for those commits


class DemoError(CommandFailedError):
    """The demo could not be played to its end; the text says why."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One look at a copy.

    Attributes:
        subject: What was looked at.
        ok: Whether it is as it was at some instant.
        text: What was found.
        facts: The same for machines.
    """

    subject: str
    ok: bool
    text: str
    facts: Any = None


class Scene(ABC):
    """A volume with an application that writes it all the time.

    Attributes:
        volume: What a `Snapshot` takes.
        size: Bytes.
        told: What was built, in a few plain sentences.
        quiesce: Managers for the instant.
    """

    volume: Any
    size: int
    told: str
    quiesce: Sequence[QuiesceManager] = ()

    @property
    @abstractmethod
    def stops(self) -> Sequence[int]:
        """Offsets, ascending; what belongs together lies on both sides of each."""

    @abstractmethod
    def commits(self) -> int:
        """Commits of the application so far.

        Raises:
            DemoError: it does not run.
        """

    @abstractmethod
    def read(self, length: int, offset: int) -> bytes:
        """The volume as it is now."""

    @abstractmethod
    def stop(self) -> None:
        """End the application."""

    @abstractmethod
    def examine(self, image: str, name: str) -> list[Verdict]:
        """Look at a raw copy of the volume, which may be changed by it.

        Args:
            image: Its path.
            name: For files made meanwhile.
        """

    def wait_for_commits(self, count: int) -> int:
        """Wait until the application has made ``count`` more commits; how many it made."""
        begin, until = self.commits(), time.monotonic() + _PATIENCE
        while (made := self.commits() - begin) < count:
            interrupts.check()
            if time.monotonic() > until:
                raise DemoError(
                    f"the application made {made} commits in {_PATIENCE:.0f} s, {count} were waited for"
                )
            time.sleep(0.005)
        return made

    def copy_naively(self, target: str, stopped: Callable[[int, int], None]) -> None:
        """Copy the volume block by block while it is written, as dd and cp do it.

        At each of `stops` the copier stands still while the application commits.  A busy machine
        does that to every copier; here it happens at a place of our choice, so that the tear
        is there every time.

        Args:
            target: The copy, a new file.
            stopped: Called after each stop with its offset and the commits that went by.
        """
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.truncate(fd, self.size)
            offset = 0
            for stop in (*self.stops, self.size):
                while offset < stop:
                    interrupts.check()
                    piece = self.read(min(PIECE, stop - offset), offset)
                    if piece.count(0) != len(piece):
                        os.lseek(fd, offset, os.SEEK_SET)
                        os.write(fd, piece)
                    offset += len(piece)
                if stop < self.size:
                    stopped(stop, self.wait_for_commits(COMMITS))
        finally:
            os.close(fd)
