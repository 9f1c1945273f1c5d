"""Commands about the Volume Shadow Copy Service: ``writers`` and ``shadow-storage``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vsssnap._units import format_size, parse_size
from vsssnap.cli import exits
from vsssnap.cli.common import PATH, command

if TYPE_CHECKING:
    from vsssnap.cli.output import Output

_HEALTHY = ("STABLE", "WAITING_FOR_BACKUP_COMPLETE")


@command(
    "writers",
    examples="""
vsssnap writers
vsssnap writers --json
""",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="For asking them all.",
)
def writers(out: Output, *, timeout: float) -> int:
    """List the VSS writers of this Windows and how they are; exit code 1 if one has failed."""
    from vsssnap.vss import list_writers

    found = list_writers(timeout=timeout)
    healthy = all(report.state in _HEALTHY for report in found)
    out.table([(report.name, report.state, report.writer_id, report.message) for report in found])
    out.document(healthy, {"writers": found})
    return exits.OK if healthy else exits.FOUND


@click.group(
    "shadow-storage",
    help="Show and limit where VSS keeps the data of shadow copies.\n\n"
    "\b\nExamples:\n  vsssnap shadow-storage list\n  vsssnap shadow-storage resize C: 20GiB",
)
def shadow_storage() -> None:
    """The group of the commands below."""


@command(
    "list",
    examples="""
vsssnap shadow-storage list
vsssnap shadow-storage list C: --json
""",
)
@click.argument("volume", required=False, type=PATH)
def list_(out: Output, *, volume: str | None) -> None:
    """List the shadow storage of a volume, or of all."""
    from vsssnap.vss import shadow_storage as ask

    found = ask(volume)
    out.table(
        [
            (
                area.volume,
                f"on {area.storage}",
                f"{format_size(area.used)} used",
                f"{format_size(area.allocated)} allocated",
                "no limit" if area.maximum is None else f"{format_size(area.maximum)} at most",
            )
            for area in found
        ]
    )
    if not found:
        out.say("there is no shadow storage")
    out.document(True, {"shadow_storage": found})


@command(
    "resize",
    examples="""
vsssnap shadow-storage resize C: 20GiB
vsssnap shadow-storage resize C: unlimited --storage D:
""",
)
@click.argument("volume", type=PATH)
@click.argument("maximum", metavar="SIZE|unlimited")
@click.option("--storage", type=PATH, metavar="VOLUME", help="Where the data are kept; by default on VOLUME.")
def resize(out: Output, *, volume: str, maximum: str, storage: str | None) -> None:
    """Limit the shadow storage of a volume, or make it; shadow copies that no longer fit are deleted."""
    from vsssnap.vss import resize_shadow_storage

    most = None if maximum.lower() == "unlimited" else parse_size(maximum)
    resize_shadow_storage(volume, maximum=most, storage=storage)
    out.say(f"shadow storage of {volume}: {'no limit' if most is None else format_size(most)}")
    out.document(True, {"volume": volume, "maximum": most})


for _command in (list_, resize):
    shadow_storage.add_command(_command)
