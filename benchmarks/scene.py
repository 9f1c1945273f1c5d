"""What a scene is: contenders that run in turn, and what is hoped of the ratios between them."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.data import Volumes
from benchmarks.measure import BenchmarkError, Contender, Rounds, Spread

HERE = Path(__file__).parent


def ours(name: str, what: str, *arguments: object, **more: object) -> Contender:
    """vsssnap, as a process that does one thing (``ours.py``)."""
    return _python("ours.py", name, what, *arguments, **more)


def bound(name: str, what: str, *arguments: object, **more: object) -> Contender:
    """The calls that cannot be done without (``bound.py``)."""
    return _python("bound.py", name, what, *arguments, **more)


def foreign(name: str, what: str, *arguments: object, **more: object) -> Contender:
    """A Python library that is not ours (``foreign.py``)."""
    return _python("foreign.py", name, what, *arguments, **more)


def _python(script: str, name: str, what: str, *arguments: object, **more: object) -> Contender:
    command = [sys.executable, str(HERE / script), what, *map(str, arguments)]
    return Contender(name, command, **more)  # type: ignore[arg-type]  # the fields of Contender


@dataclasses.dataclass(frozen=True)
class Goal:
    """What a ratio should be.

    Attributes:
        what: In words.
        slower: Contender whose time is divided (the slowest of several) ...
        faster: ... by the time of this one.
        least: The ratio hoped for, at least.
    """

    what: str
    slower: str | tuple[str, ...]
    faster: str
    least: float


@dataclasses.dataclass(frozen=True)
class Scene:
    """Contenders on one volume.

    Attributes:
        name: Short, for the command line.
        title: In the report.
        contenders: The first is what the others are put in relation to.
        goals: See `Goal`.
        volume: Bytes that a contender passes over, for MiB/s; 0 if that says nothing.
    """

    name: str
    title: str
    contenders: Sequence[Contender]
    goals: Sequence[Goal] = ()
    volume: int = 0


@dataclasses.dataclass
class Context:
    """What scenes are made from.

    Attributes:
        volumes: The volumes.
        work: A folder for what contenders write.
        quick: Whether only the peers that matter most run.
    """

    volumes: Volumes
    work: Path
    quick: bool

    def path(self, name: str) -> Path:
        """A file in the work folder."""
        return self.work / name


_SECONDS = re.compile(r"^seconds: ([0-9.e+-]+)$", re.MULTILINE)


def timed_inside(found: Rounds) -> Rounds:
    """Take the seconds that a contender printed for those of the whole process, where it printed any."""
    return {
        name: [
            dataclasses.replace(run, wall=float(said[1])) if (said := _SECONDS.search(run.said)) else run
            for run in runs
        ]
        for name, runs in found.items()
    }


def reached(goal: Goal, found: Rounds) -> Spread:
    """The ratio that a goal is about, round by round."""
    slower = (goal.slower,) if isinstance(goal.slower, str) else goal.slower
    walls = [max(run.wall for run in turn) for turn in zip(*(found[name] for name in slower), strict=True)]
    values = [wall / run.wall for wall, run in zip(walls, found[goal.faster], strict=True)]
    if not values:
        raise BenchmarkError(f"{goal.what}: nothing was measured")
    return Spread.of(values)
