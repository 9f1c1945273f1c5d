"""Where images go: names of targets, and what is to be written there."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vsssnap.cli.options import build
from vsssnap.errors import TargetRefusedError, UsageError

if TYPE_CHECKING:
    from vsssnap.formats.base import ImageFormat

STDOUT = "-"


@dataclass(frozen=True)
class Plan:
    """One image to write, checked as far as can be before anything slow begins."""

    source: str
    target: str
    driver: ImageFormat
    options: Any


def plans_for(
    sources: Sequence[str], target: str, name: str | None, pairs: Sequence[str], replace: bool
) -> list[Plan]:
    """What is to be written where; refuses what can be refused before a snapshot is taken."""
    from vsssnap.formats.registry import by_name, by_suffix
    from vsssnap.imaging.partial import check_target

    if target == STDOUT:
        return [_plan_stdout(sources, name, pairs)]
    plans = []
    for source, path in _targets(sources, target, name):
        driver = by_name(name) if name else by_suffix(path)
        try:
            # The library refuses it too, but only when services have been stopped for it.
            check_target(path, replace=replace, origins=(source,))
        except TargetRefusedError as exc:
            exc.hint = exc.hint.replace("replace=True", "--replace")
            raise
        plans.append(Plan(source, path, driver, build(driver.options_type, pairs, f"format {driver.name!r}")))
    return plans


def _plan_stdout(sources: Sequence[str], name: str | None, pairs: Sequence[str]) -> Plan:
    from vsssnap.formats.registry import by_name

    driver = by_name(name or default_format())
    if len(sources) > 1:
        raise UsageError("the standard output takes one image", hint="save the sources one by one")
    if "streaming" not in driver.features:
        raise UsageError(
            f"format {driver.name!r} cannot be streamed", hint="choose another --format, or a file"
        )
    if sys.stdout.isatty():
        raise UsageError("the standard output is a terminal", hint="send it to a file or another program")
    return Plan(sources[0], STDOUT, driver, build(driver.options_type, pairs, f"format {driver.name!r}"))


def default_format() -> str:
    """Our own format where it is there, else raw."""
    from vsssnap.formats import available

    return "vsnap" if available().get("vsnap") == "" else "raw"


def _targets(sources: Sequence[str], target: str, name: str | None) -> Iterator[tuple[str, str]]:
    from vsssnap.formats.registry import by_name

    pattern = target
    if os.path.isdir(target) or target.endswith(("/", os.sep)):
        driver = by_name(name or default_format())
        pattern = os.path.join(target, "{name}" + driver.suffixes[0])
    elif len(sources) == 1 and "{name}" not in target:
        yield sources[0], target
        return
    if "{name}" not in pattern:
        raise UsageError(
            f"{len(sources)} sources cannot all be saved as {target}",
            hint="name a folder that exists, or put {name} into the target",
        )
    for source, stem in zip(sources, stems(sources), strict=True):
        yield source, pattern.replace("{name}", stem)


def stems(sources: Sequence[str]) -> list[str]:
    """A name for each source's image: its last part, or all parts where last parts are equal.

    Raises:
        UsageError: two sources have the same name all the same.
    """
    parts = [
        [part for part in re.split(r"[/\\:]+", source) if part not in ("", ".", "..", "?")]
        for source in sources
    ]
    short = [each[-1] if each else "root" for each in parts]
    counts = Counter(name.casefold() for name in short)
    chosen = [
        name if counts[name.casefold()] == 1 else "-".join(each)
        for name, each in zip(short, parts, strict=True)
    ]
    double = [name for name, count in Counter(name.casefold() for name in chosen).items() if count > 1]
    if double:
        raise UsageError(f"several sources have the name {double[0]!r}", hint="save them one by one")
    return chosen
