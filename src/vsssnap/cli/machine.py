"""Commands about this machine: ``providers``, ``formats`` and ``snapshots``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vsssnap.cli import exits, interrupts
from vsssnap.cli.common import PATH, command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vsssnap.cli.output import Output
    from vsssnap.providers.base import SnapshotRecord


@command(
    "providers",
    short="List the snapshot providers.",
    examples="""
vsssnap providers
vsssnap providers /srv/data
vsssnap providers /srv /home --json
""",
)
@click.argument("volumes", nargs=-1, type=PATH, metavar="[VOLUME]...")
def providers(out: Output, *, volumes: tuple[str, ...]) -> int:
    """List the snapshot providers, in order of preference.

    With volumes: what each offers for all of them at one instant, or why it cannot; exit code 3 if
    none can.  Providers for other systems or other kinds of volumes are left out, but of --json.
    """
    from vsssnap.consistency import Consistency
    from vsssnap.providers import SnapshotRequest, available, by_name
    from vsssnap.providers.choice import offers

    listed: list[dict[str, Any]]
    if not volumes:
        listed = [
            {"name": name, "usable": not reason, "reason": reason} for name, reason in available().items()
        ]
        for entry in listed:
            entry["options"] = _options(by_name(entry["name"]).options_type) if entry["usable"] else []
        out.table([(e["name"], "usable" if e["usable"] else "not usable", e["reason"]) for e in listed])
        out.document(True, {"providers": listed})
        return exits.OK
    request = SnapshotRequest(volumes=volumes, require=Consistency.CRASH)
    listed = [
        {"name": name, "level": offer.level, "reason": offer.reason, "unrelated": offer.unrelated}
        for name, _, offer in offers(request)
    ]
    shown = [entry for entry in listed if not entry["unrelated"]] or listed
    chosen = next((entry["name"] for entry in listed if entry["level"] is not None), None)
    out.table(
        [
            (
                f"{'*' if entry['name'] == chosen else ' '} {entry['name']}",
                "no" if entry["level"] is None else entry["level"].name.lower(),
                entry["reason"],
            )
            for entry in shown
        ]
    )
    out.say("* is what `vsssnap save` takes by default" if chosen else "no provider can snapshot this")
    out.document(chosen is not None, {"volumes": volumes, "providers": listed, "chosen": chosen})
    return exits.OK if chosen else 3


@command(
    "formats",
    short="List the image formats.",
    examples="""
vsssnap formats
vsssnap formats --json
""",
)
def formats(out: Output) -> None:
    """List the image formats, their suffixes, what they can hold, and their options."""
    from vsssnap.formats import available, by_name

    listed = []
    for name, reason in available().items():
        entry: dict[str, Any] = {"name": name, "usable": not reason, "reason": reason}
        if not reason:
            driver = by_name(name)
            entry["suffixes"] = driver.suffixes
            entry["features"] = sorted(driver.features)
            entry["options"] = _options(driver.options_type)
        listed.append(entry)
        out.say(f"{name}: {reason or ' '.join(entry['suffixes'])}", bold=True)
        if not reason:
            out.facts(
                [("holds", ", ".join(entry["features"])), *(("--option", text) for text in entry["options"])]
            )
    out.document(True, {"formats": listed})


def _options(kind: type | None) -> list[str]:
    from vsssnap.cli.options import description

    return description(kind) if kind is not None else []


@click.group(
    "snapshots",
    short_help="List, make and remove lasting snapshots.",
    help="List, make and remove snapshots that outlive a process.\n\n"
    "\b\nExamples:\n  vsssnap snapshots list\n  vsssnap snapshots purge",
)
def snapshots() -> None:
    """The group of the commands below."""


@command(
    "list",
    examples="""
vsssnap snapshots list
vsssnap snapshots list --json
""",
)
def list_(out: Output) -> None:
    """List the snapshots on this machine that the providers can see."""
    from vsssnap._inventory import survey

    found, unseen = survey()
    _show(out, found)
    _warn(out, unseen)
    if not found and not unseen:
        out.say("there are no snapshots")
    out.document(True, {"snapshots": found})


@command(
    "create",
    examples="""
vsssnap snapshots create C:
vsssnap snapshots create C: D: --provider vss
""",
)
@click.argument("volumes", nargs=-1, required=True, type=PATH, metavar="VOLUME...")
@click.option("--provider", metavar="NAME", help="Ask this snapshot provider alone.")
@click.option(
    "--require",
    type=click.Choice(["crash", "filesystem", "application"]),
    default="crash",
    show_default=True,
    help="The least consistency.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="For taking it.",
)
def create(
    out: Output, *, volumes: tuple[str, ...], provider: str | None, require: str, timeout: float
) -> None:
    """Take a snapshot that stays until `vsssnap snapshots delete`, and print its id."""
    from vsssnap import Snapshot
    from vsssnap.consistency import Consistency

    snapshot = Snapshot(
        *volumes, provider=provider, require=Consistency[require.upper()], timeout=timeout, persistent=True
    )
    with interrupts.deferred(snapshot.cancel), snapshot:
        out.say(snapshot.id)
        values = {
            "id": snapshot.id,
            "provider": snapshot.provider,
            "consistency": snapshot.consistency,
            "created": snapshot.created,
            "volumes": snapshot.volumes,
        }
    out.document(True, {"snapshot": values})


@command("delete", examples="vsssnap snapshots delete 6f1c\u2026")
@click.argument("snapshot_id", metavar="ID")
@click.option("--provider", metavar="NAME", help="Its provider; by default all are asked.")
def delete(out: Output, *, snapshot_id: str, provider: str | None) -> None:
    """Remove a snapshot by its id."""
    from vsssnap import Snapshot

    Snapshot.attach(snapshot_id, provider=provider, own=True).close()
    out.say(f"{snapshot_id} is removed")
    out.document(True, {"removed": [snapshot_id]})


@command(
    "purge",
    examples="""
vsssnap snapshots purge
vsssnap snapshots purge --json
""",
)
def purge(out: Output) -> None:
    """Remove what killed runs of vsssnap left: its own snapshots whose process is gone."""
    import vsssnap
    from vsssnap._inventory import survey

    removed = vsssnap.purge()
    _show(out, removed)
    _warn(out, survey()[1])
    out.say(f"{len(removed)} removed")
    out.document(True, {"removed": removed})


for _command in (list_, create, delete, purge):
    snapshots.add_command(_command)


def _warn(out: Output, unseen: dict[str, str]) -> None:
    for name, reason in unseen.items():
        out.warn(f"{name}: {reason}")


def _show(out: Output, records: Sequence[SnapshotRecord]) -> None:
    out.table(
        [
            (
                record.provider,
                record.snapshot_id,
                record.created.isoformat(sep=" ", timespec="seconds") if record.created else "-",
                "left behind"
                if record.owned and not record.owner_alive and not record.kept
                else "ours"
                if record.owned
                else "foreign",
                ", ".join(record.volumes),
            )
            for record in records
        ]
    )
