"""Findings for people: one for neighbouring ranges that have the same trouble."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

from vsssnap.blocks.extent import Extent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vsssnap.formats.base import Finding

_NUMBER: Final = re.compile(r"0x[0-9a-f]+|\d+")


def joined(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Join findings that follow one another, in the volume too, and differ in numbers alone.

    An image that was cut short has lost a great many blocks, and that is one thing to know.

    Args:
        findings: Of one format; what has no extent stays as it is.
    """
    first: Finding | None = None
    trouble: tuple[str, str] | None = None
    more = end = 0
    for finding in findings:
        now = (finding.structure, _NUMBER.sub("", finding.message))
        extent = finding.extent
        if first is not None and extent is not None and (now, extent.offset) == (trouble, end):
            more, end = more + 1, extent.end
            continue
        if first is not None:
            yield _run(first, more, end)
        first, trouble, more = finding, now, 0
        end = extent.end if extent is not None else -1
    if first is not None:
        yield _run(first, more, end)


def _run(first: Finding, more: int, end: int) -> Finding:
    if not more or first.extent is None:
        return first
    message = f"{first.message}; so with {more} more, up to byte {end} of the volume"
    extent = Extent(first.extent.offset, end - first.extent.offset)
    return dataclasses.replace(first, message=message, extent=extent)
