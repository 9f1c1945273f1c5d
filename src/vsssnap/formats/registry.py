"""Which formats there are, and which one a file or a name belongs to."""

from __future__ import annotations

import logging
import os
from typing import Any

from vsssnap._registry import Registry
from vsssnap.errors import UnknownFormatError, UsageError
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

_SUFFIXES = {
    "qcow2": (".qcow2",),
    "raw": (".raw", ".dd"),
    "vhd": (".vhd", ".avhd"),
    "vmdk": (".vmdk",),
    "vhdx": (".vhdx", ".avhdx"),
    "vsnap": (".vsnap",),
}
"""Suffixes of the built-ins, so that a name is understood without loading all of them."""

_SURE = 100  # the most that a probe may give

_PLAIN = _SUFFIXES["raw"]
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
    if not isinstance(name, str):
        raise UsageError(
            f"there is no image format {name!r}", hint=f"known are {', '.join(_REGISTRY.names())}"
        )
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
    base = os.path.basename(path).lower()
    known: dict[str, str] = {}  # of several with one suffix the first: built-ins
    for name in _REGISTRY.names():
        for suffix in _suffixes_of(name):
            known.setdefault(suffix, name)
    fitting = [suffix for suffix in known if base.endswith(suffix)]
    if fitting:
        return by_name(known[max(fitting, key=len)])
    raise UnknownFormatError(
        f"{path}: no image format has this suffix",
        path=path,
        hint=f"name format=, or use one of {', '.join(sorted(known))}",
    )


def by_probe(seen: Probe, path: str) -> ImageFormat:
    """The format of an existing file: a name that says raw, else the surest probe.

    Of several that are equally sure the one whose suffix the name has: the first sector of a fixed
    VHD is its volume's, and may look like the head of another format.

    Raises:
        UnknownFormatError: no format recognises it.
    """
    name = seen.name.lower()
    if name.endswith(_PLAIN):
        return by_name("raw")
    for own, suffixes in _SUFFIXES.items():
        # Nobody is surer, and of equals the one with the suffix is taken: the others need not be loaded.
        if name.endswith(suffixes) and not _REGISTRY.is_lending:
            driver = by_name(own)
            if _score(driver, seen) == _SURE:
                return driver
    scored = [(_score(driver, seen), driver) for driver in _drivers()]
    best, driver = max(scored, key=lambda pair: (pair[0], name.endswith(tuple(pair[1].suffixes))))
    if best <= 0:
        tried = ", ".join(found.name for _, found in scored)
        raise UnknownFormatError(
            f"{path}: no image format recognises it (tried {tried})",
            path=path,
            hint='name format="raw" if it is raw',
        )
    return driver


def _suffixes_of(name: str) -> tuple[str, ...]:
    if name in _SUFFIXES and not _REGISTRY.is_lending:
        return _SUFFIXES[name]
    driver = _driver(name)
    return tuple(driver.suffixes) if driver is not None else ()


def _score(driver: ImageFormat, seen: Probe) -> int:
    try:
        return driver.probe(seen)
    except Exception:  # a guest's bug must not keep other formats from being recognised
        _log.warning("format %r failed to probe a file", driver.name, exc_info=True)
        return 0


def _drivers() -> list[ImageFormat]:
    return [driver for name in _REGISTRY.load() if (driver := _driver(name)) is not None]


def _driver(name: str) -> ImageFormat | None:
    """A driver; None for a guest's that does not load or cannot be made, which must not hinder others."""
    try:
        return by_name(name)
    except UsageError:
        return None  # `available` says why
    except Exception:
        _log.warning("format %r cannot be made", name, exc_info=True)
        return None
