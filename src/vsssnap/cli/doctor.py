"""``vsssnap doctor``: what this machine can do, what it cannot, and what to do about it."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

import click

from vsssnap import __version__
from vsssnap.cli import exits
from vsssnap.cli.checks import Check
from vsssnap.cli.common import PATH, command
from vsssnap.errors import VssSnapError

if TYPE_CHECKING:
    from vsssnap.cli.output import Output

_CORE = ("cffi", "zstandard", "xxhash", "blake3")


@command(
    "doctor",
    short="Show what this machine can do.",
    examples="""
vsssnap doctor
vsssnap doctor /srv/images
vsssnap doctor --json
""",
)
@click.argument("folder", default=".", type=PATH)
def doctor(out: Output, *, folder: str) -> int:
    """Show what this machine can do and, for what it cannot, why and what to do.

    FOLDER (by default the current one) is where images or volumes in files would lie.  Exit code 1
    if no snapshot provider can be used or a package is missing; the rest is advice.
    """
    found: list[Check] = []
    group = ""
    with contextlib.suppress(OSError):  # the current folder was removed: it has no name any more
        folder = os.path.abspath(folder)
    for check in _checks(folder):
        found.append(check)
        if check.group != group:
            group = check.group
            out.say(group, bold=True)
        mark = "yes" if check.ok else "NO "
        out.say(f"  {mark}  {check.name:<20}  {check.detail}", fg=None if check.ok else "yellow")
        if check.remedy:
            out.say(f"       {'':<20}  -> {check.remedy}")
    able = any(check.ok for check in found if check.group == "providers") and all(
        check.ok for check in found if check.group == "packages"
    )
    out.document(able, {"checks": found})
    return exits.OK if able else exits.FOUND


def _checks(folder: str) -> Iterator[Check]:
    from vsssnap import formats, providers

    yield Check(
        "program",
        "vsssnap",
        True,
        f"{__version__}, Python {platform.python_version()}, {platform.platform()}",
    )
    for name in _CORE:
        version = _version(name)
        remedy = "" if version else f"pip install {name}"
        yield Check("packages", name, bool(version), version or "not installed", remedy)
    for name, reason in providers.available().items():
        if reason and not _belongs_here(name):
            continue
        yield Check(
            "providers",
            name,
            not reason,
            reason or "usable",
            "`vsssnap providers VOLUME` tells for one volume" if reason else "",
        )
    for name, reason in formats.available().items():
        yield Check(
            "formats",
            name,
            not reason,
            reason or "usable",
            "reinstall the package it comes from" if reason else "",
        )
    if sys.platform == "linux":
        from vsssnap.cli import kernel

        yield from kernel.checks(folder)


def _belongs_here(provider: str) -> bool:
    """Whether a provider is for this system; nothing can be done about one that is not."""
    from vsssnap import providers

    try:
        platforms = providers.by_name(provider).platforms
    except VssSnapError:
        return True
    return not platforms or sys.platform in platforms


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
