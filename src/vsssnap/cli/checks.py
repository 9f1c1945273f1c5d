"""One finding of ``vsssnap doctor``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """Something this machine can do, or cannot.

    Attributes:
        group: Heading it belongs under.
        name: What was looked at.
        ok: Whether it is there.
        detail: What was found.
        remedy: What to do if it is not there; "" if it is.
    """

    group: str
    name: str
    ok: bool
    detail: str = ""
    remedy: str = ""
