"""Where images go, and what is to be written there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vsssnap._arguments import path_text
from vsssnap.cli.naming import default_format, targets
from vsssnap.cli.options import build
from vsssnap.errors import UsageError

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
    sources: Sequence[str],
    target: str,
    name: str | None,
    pairs: Sequence[str],
    replace: bool,
    *,
    named: Sequence[str] | None = None,
) -> list[Plan]:
    """What is to be written where; refuses what can be refused before a snapshot is taken."""
    from vsssnap.formats.registry import by_name, by_suffix
    from vsssnap.imaging.partial import check_target

    if target == STDOUT:
        return [_plan_stdout(sources, name, pairs)]
    path_text(target)  # refuses what names nothing
    plans = []
    for source, path in targets(sources, target, name, named or sources):
        driver = by_name(name) if name else by_suffix(path)
        # The library refuses it too, but only when services have been stopped for it.
        check_target(path, replace=replace, origins=(source,))
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
