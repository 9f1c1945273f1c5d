"""How images are named after their sources."""

from __future__ import annotations

import os
import re
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vsssnap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def default_format() -> str:
    """Our own format where it is there, else raw."""
    from vsssnap.formats import available

    return "vsnap" if available().get("vsnap") == "" else "raw"


def without_suffix(image: str) -> str:
    """An image's name without the ending of its format, for the name of another."""
    from vsssnap.formats import available, by_name

    usable = [by_name(name) for name, problem in available().items() if not problem]
    endings = [ending for driver in usable for ending in driver.suffixes]
    found = next((ending for ending in endings if image.lower().endswith(ending)), "")
    return image[: len(image) - len(found)]


def targets(
    sources: Sequence[str], target: str, name: str | None, named: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Each source with the path of its image.

    Args:
        sources: What is imaged.
        target: A name, a folder, or a pattern with ``{name}`` and ``{date}``, today in UTC.
        name: The format, or None for that of the suffix.
        named: What the images are named after, one for each source.

    Raises:
        UsageError: the images do not all get a name of their own, or something else is in braces.
    """
    from vsssnap.formats.registry import by_name

    unknown = sorted(set(re.findall(r"\{[^{}]*\}", target)) - {"{name}", "{date}"})
    if unknown:
        raise UsageError(
            f"{target}: {unknown[0]} stands for nothing", hint="{name} and {date} are known; see --help"
        )
    target = target.replace("{date}", f"{datetime.now(UTC):%Y-%m-%d}")
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
    for source, stem in zip(sources, stems(named), strict=True):
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
