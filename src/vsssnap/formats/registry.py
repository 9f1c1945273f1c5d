"""Which formats there are, and which one a file or a name belongs to."""

from __future__ import annotations

import logging
import os
from typing import Any

from vsssnap._registry import Registry
from vsssnap.errors import UnknownFormatError
from vsssnap.formats.base import FORMAT_API, ImageFormat, Probe

__all__ = ["available", "by_name", "by_probe", "by_suffix"]

_log = logging.getLogger("vsssnap.formats")

_REGISTRY: Registry[Any] = Registry(
    "image format",
    "vsssnap.formats",
    "vsssnap.formats.base:ImageFormat",
    FORMAT_API,
    {
        "qcow2": "vsssnap.formats.qcow2:Qcow2Format",
        "raw": "vsssnap.formats.raw:RawFormat",
        "vhd": "vsssnap.formats.vhd:VhdFormat",
        "vmdk": "vsssnap.formats.vmdk:VmdkFormat",
        "vhdx": "vsssnap.formats.vhdx:VhdxFormat",
        "vsnap": "vsssnap.formats.vsnap:VsnapFormat",
    },
)

_PLAIN = (".raw", ".dd")
"""Suffixes that say raw whatever the content looks like.

A raw image holds what its volume held, so whoever can write the volume's first sector can
make it look like an image of another format that names a file of the host as its parent.
A name that says raw is therefore believed before any magic.
"""


def by_name(name: str) -> ImageFormat:
    """The format of a name.

    Raises:
        UsageError: there is none, two packages declare it, or it does not load.
    """
    driver: ImageFormat = _REGISTRY.get(name)()
    return driver


def available() -> dict[str, str]:
    """Every format by name: "" if it can be used, else why not."""
    problems = _REGISTRY.problems()
    return {name: problems.get(name, "") for name in _REGISTRY.names()}


def by_suffix(path: str) -> ImageFormat:
    """The format that a new file of this name gets: the one with the longest suffix that fits.

    Raises:
        UnknownFormatError: no format has the suffix.
    """
    name = os.path.basename(path).lower()
    drivers = _drivers()
    fitting = [
        (len(suffix), driver) for driver in drivers for suffix in driver.suffixes if name.endswith(suffix)
    ]
    if fitting:
        return max(fitting, key=lambda pair: pair[0])[1]  # the first of several: built-ins
    known = sorted({suffix for driver in drivers for suffix in driver.suffixes})
    raise UnknownFormatError(
        f"{path}: no image format has this suffix",
        path=path,
        hint=f"name format=, or use one of {', '.join(known)}",
    )


def by_probe(seen: Probe, path: str) -> ImageFormat:
    """The format of an existing file: a name that says raw, else the surest probe.

    Of several that are equally sure the one whose suffix the name has: the first sector of a fixed
    VHD is its volume's, and may look like the head of another format.

    Raises:
        UnknownFormatError: no format recognises it.
    """
    if seen.name.lower().endswith(_PLAIN):
        return by_name("raw")
    scored = [(_score(driver, seen), driver) for driver in _drivers()]
    name = seen.name.lower()
    best, driver = max(scored, key=lambda pair: (pair[0], name.endswith(tuple(pair[1].suffixes))))
    if best <= 0:
        tried = ", ".join(found.name for _, found in scored)
        raise UnknownFormatError(
            f"{path}: no image format recognises it (tried {tried})",
            path=path,
            hint='name format="raw" if it is raw',
        )
    return driver


def _score(driver: ImageFormat, seen: Probe) -> int:
    try:
        return driver.probe(seen)
    except Exception:  # a guest's bug must not keep other formats from being recognised
        _log.warning("format %r failed to probe a file", driver.name, exc_info=True)
        return 0


def _drivers() -> list[ImageFormat]:
    found = []
    for name, driver in _REGISTRY.load().items():
        try:
            found.append(driver())
        except Exception:  # as above
            _log.warning("format %r cannot be made", name, exc_info=True)
    return found
