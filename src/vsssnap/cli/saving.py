"""``vsssnap save`` and ``vsssnap convert``: everything that writes images."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from vsssnap._units import format_size
from vsssnap.cli import disks, exits, interrupts, shadow
from vsssnap.cli.common import PATH, command, image_options, reading_options
from vsssnap.cli.naming import without_suffix
from vsssnap.cli.options import build
from vsssnap.cli.quieting import managers
from vsssnap.cli.sources import check_plans, refuse_images, warn_of_doubles, warn_of_parents, warn_of_places
from vsssnap.cli.targets import STDOUT, Plan, plans_for
from vsssnap.cli.verifying import verified
from vsssnap.cli.views import disk_image, say_left_out, view_options, wanted
from vsssnap.errors import UsageError

if TYPE_CHECKING:
    from vsssnap import CopyOptions
    from vsssnap.blocks.reader import BlockReader
    from vsssnap.cli.output import Output
    from vsssnap.cli.views import Wanted
    from vsssnap.formats.base import ImageReader
    from vsssnap.imaging.reports import CopyReport
    from vsssnap.snapshot import Snapshot

_LIVE = "copied live, without a snapshot: what was written meanwhile may be in it half, so it may be torn"


@command(
    "save",
    examples="""
vsssnap save /srv/data data.vsnap
vsssnap save /srv/data data.raw --require filesystem --verify
vsssnap save /srv/db db.vsnap --stop-service postgresql --require application
vsssnap save /srv /home '/backup/{name}-{date}.vsnap'
vsssnap save disk.raw windows.vsnap --partition 2
vsssnap save disk.vhdx root.vsnap --volume vg/root
vsssnap save /srv/data - | ssh backup 'cat > data.vsnap'
vsssnap save /dev/sdb2 yesterday.vsnap --shadow 1
""",
)
@click.argument("sources", nargs=-1, required=True, type=PATH, metavar="SOURCE...")
@click.argument("target", type=PATH)
@click.option("--provider", metavar="NAME", help="Ask this snapshot provider alone; see `vsssnap providers`.")
@click.option(
    "--provider-option",
    "provider_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of --provider.",
)
@click.option(
    "--require",
    type=click.Choice(["crash", "filesystem", "application"]),
    default="crash",
    show_default=True,
    help="The least consistency; without it there is no image.",
)
@click.option(
    "--stop-service",
    "services",
    multiple=True,
    metavar="NAME",
    help="Stop this service for the instant.  Repeatable.",
)
@click.option("--before", metavar="COMMAND", help="Run right before the instant; split into words, no shell.")
@click.option("--after", metavar="COMMAND", help="Run right after it, whatever happened.")
@click.option(
    "--claims-application",
    is_flag=True,
    help="Between --before and --after the application has flushed everything and writes nothing.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="For taking the snapshot, waiting for others included.",
)
@click.option("--live", is_flag=True, help="No snapshot: read the device as it is.  The image may be torn.")
@click.option("--parent", type=PATH, help="The image that this one is an increment of.")
@click.option(
    "--uncovered",
    type=click.Choice(["read", "leave-out"]),
    help="Of a disk: what becomes of partitions that no snapshot can stand for, such as swap.  "
    "[default: refuse]",
)
@click.option(
    "--input-format",
    metavar="NAME",
    help="Format of SOURCE, an image, with --partition, --volume or --shadow; "
    "raw: a file's bytes, whatever it is.",
)
@click.option("--verify", "check", is_flag=True, help="Verify the image when it is complete.")
@view_options
@shadow.shadow_options
@image_options
def save(out: Output, **given: Any) -> int:  # noqa: ANN401 - click passes what the options declare
    """Image volumes through a snapshot.

    SOURCE is a device, a mount point or a file.  TARGET is the image's name; "-" is the standard
    output, for formats that stream.  With several sources, all as they were at one instant, TARGET
    is a folder or a name with {name} in it, which stands for the source's last part; {date} in it is
    today's, in UTC.  Each image is complete under its name or not there.  A disk whose partitions are
    in use is taken apart: its volumes are snapshotted together and put back in their places.

    Blocks that no file uses are left out, and so are page files and the like, where SOURCE holds a
    file system whose map can be trusted; `--unused read --no-exclude` copies everything.
    """
    _copy_options(given)  # what is wrong with them is said before anything is stopped
    view = wanted(given, live=given["live"])
    if view.part is not None and len(given["sources"]) > 1:
        option = "--volume" if view.part.volume else "--partition"
        raise UsageError(f"{option} is about one source", hint="save the sources one by one")
    plans = plans_for(
        given["sources"], given["target"], given["format_name"], given["options"], given["replace"]
    )
    out.taken = given["target"] == STDOUT
    if out.taken and given["check"]:
        raise UsageError(
            "--verify cannot read the standard output", hint="verify the image where it has arrived"
        )
    if given["shadow"] is not None:
        return _save_shadow(out, plans, given, view)
    shadow.check_alone(given)
    if given["live"]:
        return _save_live(out, plans, given, view)
    disk = disk_image(plans[0].source, part=view.part, format=given["input_format"])
    if disk is not None:
        with contextlib.ExitStack() as unless:
            unless.callback(disk.close)
            shadow.refuse_snapshot_options(given, "an image as source", "no snapshot is taken of it")
            unless.pop_all()
        part = view.of(disk, plans[0].source)
        report, _ = _save_reader(out, plans[0], given, lambda stack: stack.enter_context(part))
        return _report(out, [report], {"snapshot": None}, check=given["check"])
    refuse_images(given["sources"], given["input_format"])
    from vsssnap import Snapshot
    from vsssnap.cli.awaited import opened_image
    from vsssnap.consistency import Consistency
    from vsssnap.providers import by_name

    if given["provider_options"] and not given["provider"]:
        raise UsageError("--provider-option without --provider", hint="name the provider")
    options = None
    if given["provider_options"]:
        kind = by_name(given["provider"]).options_type
        if kind is None:
            raise UsageError(f"provider {given['provider']!r} has no options")
        options = build(kind, given["provider_options"], f"provider {given['provider']!r}")
    asked = {
        "provider": given["provider"],
        "require": Consistency[given["require"].upper()],
        "quiesce": managers(given),
        "timeout": given["timeout"],
        "options": options,
    }
    if len(plans) == 1 and view.part is None and disks.in_use(plans[0].source):
        return _save_disk(out, plans[0], given, view, asked)
    if given["uncovered"]:
        raise UsageError("--uncovered is about a disk whose partitions are in use")
    snapshot = Snapshot(*given["sources"], **asked)
    with contextlib.ExitStack() as stack:
        parent = stack.enter_context(opened_image(given["parent"])) if given["parent"] else None
        check_plans(plans, part=view.part, parent=parent, replace=given["replace"], wrap=given["wrap"])
        warn_of_places(out, [(plan.source, plan.target) for plan in plans])
        stack.enter_context(interrupts.deferred(snapshot.cancel))
        stack.enter_context(snapshot)
        warn_of_doubles(out, snapshot)
        interrupts.check()
        out.say(
            f"snapshot of {', '.join(given['sources'])} by {snapshot.provider}, "
            f"{snapshot.consistency.name.lower()} consistent, {snapshot.created:%Y-%m-%d %H:%M:%S %Z}"
        )
        reports = []
        for plan in plans:
            interrupts.check()
            with view.of_snapshot(snapshot, plan.source) as reader:
                reports.append(_write(out, reader, plan, given, parent=parent))
        facts = _facts(snapshot)
    return _report(out, reports, {"snapshot": facts}, check=given["check"])


def _facts(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "id": snapshot.id,
        "provider": snapshot.provider,
        "consistency": snapshot.consistency,
        "created": snapshot.created,
        "volumes": snapshot.volumes,
        "writers": snapshot.writers,
    }


def _save_disk(out: Output, plan: Plan, given: dict[str, Any], view: Wanted, asked: dict[str, Any]) -> int:
    from vsssnap.cli.awaited import opened_image

    with contextlib.ExitStack() as stack:
        parent = stack.enter_context(opened_image(given["parent"])) if given["parent"] else None
        check_plans([plan], part=None, parent=parent, replace=given["replace"], wrap=given["wrap"])
        warn_of_places(out, [(volume, plan.target) for volume in disks.used(plan.source)])
        reader, snapshot = disks.opened(out, stack, plan.source, given, view, asked)
        report = _write(out, reader, plan, given, parent=parent)
        facts = None if snapshot is None else _facts(snapshot)
    return _report(out, [report], {"snapshot": facts}, check=given["check"])


def _save_reader(
    out: Output, plan: Plan, given: dict[str, Any], open_in: Callable[[contextlib.ExitStack], BlockReader]
) -> tuple[CopyReport, BlockReader]:
    """Save what is there already and needs no snapshot."""
    from vsssnap.cli.awaited import opened_image

    with contextlib.ExitStack() as stack:
        parent = stack.enter_context(opened_image(given["parent"])) if given["parent"] else None
        reader = open_in(stack)
        stack.enter_context(interrupts.deferred())
        return _write(out, reader, plan, given, parent=parent), reader


def _save_live(out: Output, plans: Sequence[Plan], given: dict[str, Any], view: Wanted) -> int:
    from vsssnap.cli.awaited import opened_device, opened_image

    shadow.refuse_snapshot_options(given, "--live", "--live takes no snapshot")
    if len(plans) > 1:
        raise UsageError(
            "--live with several sources: they have no common instant", hint="save them one by one"
        )
    refuse_images(given["sources"], given["input_format"])
    out.warn(f"{plans[0].source} is {_LIVE}")
    with contextlib.ExitStack() as stack:
        parent = stack.enter_context(opened_image(given["parent"])) if given["parent"] else None
        device = opened_device(plans[0].source)
        reader = stack.enter_context(view.of(device, plans[0].source))
        stack.enter_context(interrupts.deferred())
        metadata = reader.metadata.replace(notes=(*reader.metadata.notes, _LIVE))
        report = _write(out, reader, plans[0], given, parent=parent, metadata=metadata)
    return _report(out, [report], {"snapshot": None}, check=given["check"])


def _save_shadow(out: Output, plans: Sequence[Plan], given: dict[str, Any], view: Wanted) -> int:
    if len(plans) > 1:
        raise UsageError("--shadow is about one source", hint="save them one by one")
    source = plans[0].source
    from vsssnap.volumes.policy import UnusedPolicy

    # A shadow copy is one volume, and --shadow-unused says what its unused blocks hold.
    unused = view.unused if given["unused"] else UnusedPolicy.READ
    whole = dataclasses.replace(view, part=None, unused=unused)

    def opened(stack: contextlib.ExitStack) -> BlockReader:
        # Block 0 of every copy shows the catalog of now; the view blanks the way to it.
        return stack.enter_context(whole.of(shadow.opened(stack, source, given), source))

    report, reader = _save_reader(out, plans[0], given, opened)
    facts = {"id": reader.metadata.snapshot_id, "created": reader.metadata.created}
    return _report(out, [report], {"shadow": facts}, check=given["check"])


@command(
    "convert",
    short="Write an image in another format.",
    examples="""
vsssnap convert data.raw data.vsnap --option level=9
vsssnap convert data.vsnap data.raw
vsssnap convert disk.bin disk.vsnap --input-format raw
vsssnap convert half.qcow2 rest.vsnap --recover --on-read-error mark
""",
)
@click.argument("image", type=PATH)
@click.argument("target", type=PATH)
@click.option("--input-format", metavar="NAME", help="Format of IMAGE; by default it is recognised.")
@reading_options
@image_options
def convert(out: Output, **given: Any) -> int:  # noqa: ANN401 - click passes what the options declare
    """Write the image IMAGE again as TARGET, in another format or with other options.

    What IMAGE says of itself goes along.  TARGET "-" is the standard output.
    """
    from vsssnap.cli.awaited import opened_image

    target = given["target"]
    (plan,) = plans_for(
        [given["image"]],
        target,
        given["format_name"],
        given["options"],
        given["replace"],
        named=[without_suffix(given["image"])],
    )
    out.taken = target == STDOUT
    with (
        opened_image(
            given["image"], given["input_format"], recover=given["recover"], parent=given["parent"]
        ) as reader,
        interrupts.deferred(),
    ):
        if given["recover"]:
            warn_of_parents(out, reader)
        report = _write(out, reader, plan, given)
    return _report(out, [report], {})


def _write(
    out: Output,
    reader: BlockReader,
    plan: Plan,
    given: dict[str, Any],
    *,
    parent: ImageReader | None = None,
    metadata: Any = None,  # noqa: ANN401 - ImageMetadata, which --help need not load
) -> CopyReport:
    from vsssnap import OnReadError, save_image
    from vsssnap.cli.awaited import Awaited
    from vsssnap.formats import PipeStorage

    to_stdout = plan.target == STDOUT
    with out.progress(f"save {plan.source}") as progress:
        report = save_image(
            Awaited(reader),
            PipeStorage(sys.stdout.fileno(), "standard output", owned=False) if to_stdout else plan.target,
            format=plan.driver.name,
            options=plan.options,
            parent=parent,
            metadata=metadata,
            replace=given["replace"],
            on_read_error=OnReadError(given["on_read_error"]),
            copy=_copy_options(given),
            progress=progress,
            wrap=given["wrap"],
        )
    changed = f", {format_size(report.changed)} changed" if report.changed is not None else ""
    stored = f", {format_size(report.stored)} stored" if report.stored is not None else ""
    seconds = max(report.seconds, 1e-6)
    out.say(
        f"{plan.source} -> {'standard output' if to_stdout else plan.target}: {format_size(report.size)}, "
        f"{format_size(report.data)} of it read{changed}{stored}, {report.seconds:.1f} s, "
        f"{format_size(report.data / seconds)}/s read"
    )
    if parent is not None and "checksums" in plan.driver.features and not given["check"]:
        out.say(f"  what did not change stays in {parent.path}, known by checksums alone; --verify reads it")
    if report.wrapped:
        out.say("  a volume: it was put into a disk with one partition; --no-wrap leaves it bare")
    for extent in report.unreadable:
        out.warn(f"{plan.source}: {extent.length} bytes at {extent.offset} are unreadable and marked so")
    say_left_out(out, reader)
    _say_what_is_lost(out, plan, report)
    return report


def _copy_options(given: dict[str, Any]) -> CopyOptions:
    from vsssnap import CopyOptions

    return CopyOptions(workers=given["workers"], rate_limit=given["rate_limit"])


def _say_what_is_lost(out: Output, plan: Plan, report: CopyReport) -> None:
    """Tell what the format has no room for."""
    kinds = [f"{format_size(count)} {kind}" for kind, count in report.flattened.items()]
    if kinds:
        out.say(f"  {plan.driver.name} has plain zeros for {', '.join(kinds)}")
    kept = {"checksums", "metadata"} & plan.driver.features
    beside = plan.target != STDOUT and plan.driver.wants_sidecar(plan.options)
    if not kept and not beside:
        remedy = "" if plan.target == STDOUT else "; --option sidecar=yes puts them into a file beside it"
        out.say(f"  {plan.driver.name} keeps neither checksums nor metadata{remedy}")


def _report(out: Output, reports: Sequence[CopyReport], facts: dict[str, Any], *, check: bool = False) -> int:
    """End a command that wrote images; with ``check`` each is verified before that."""
    ok = not any(report.unreadable for report in reports)
    if check:
        checked = [verified(out, report.path, report.format) for report in reports]
        ok = ok and all(report.ok for report in checked)
        facts = {**facts, "verified": checked}
    out.document(ok, {"images": reports, **facts})
    return exits.OK if ok else exits.FOUND
