"""Commands on images: ``restore``, ``info``, ``compare``."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from vsssnap._units import format_size
from vsssnap.cli import exits, interrupts, shadow
from vsssnap.cli.common import (
    PATH,
    command,
    copy_options,
    is_block_device,
    read_error_option,
    reading_options,
)
from vsssnap.cli.sources import warn_of_parents
from vsssnap.cli.targets import STDOUT
from vsssnap.cli.tree import contents, lines
from vsssnap.cli.wording import for_people
from vsssnap.errors import (
    CorruptImageError,
    DeviceReadError,
    ImageNotFoundError,
    ParentMismatchError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vsssnap.blocks.reader import BlockReader
    from vsssnap.cli.output import Output
    from vsssnap.formats.base import ImageReader
    from vsssnap.metadata import ImageMetadata

_SHOWN = 20  # ranges that people see without --limit


@command(
    "restore",
    short="Write an image to a file or block device.",
    examples="""
vsssnap restore data.vsnap data.raw
vsssnap restore data.vsnap /dev/sdb1 --verify
vsssnap restore data.vsnap /dev/sdb1 --yes --quiet
vsssnap restore half.vsnap rest.raw --recover --on-read-error mark
""",
)
@click.argument("image", type=PATH)
@click.argument("target", type=PATH)
@click.option("--format", "format_name", metavar="NAME", help="Format of IMAGE; by default it is recognised.")
@click.option("--verify", "check", is_flag=True, help="Read the target back and compare it with the image.")
@click.option("--replace", is_flag=True, help="Replace an existing file once the new one is complete.")
@click.option("--yes", is_flag=True, help="Do not ask before a block device is overwritten.")
@click.option("--no-unwrap", is_flag=True, help="Of a volume that was put into a disk write the whole disk.")
@reading_options
@read_error_option
@copy_options
def restore(
    out: Output,
    *,
    image: str,
    target: str,
    format_name: str | None,
    check: bool,
    replace: bool,
    yes: bool,
    no_unwrap: bool,
    recover: bool,
    parent: tuple[str, ...],
    on_read_error: str,
    workers: int | None,
    rate_limit: int | None,
) -> int:
    """Write an image's volume to TARGET, a file or a block device.

    Of a volume that `vsssnap save` put into a disk the volume is written, without the disk.

    A file is written sparse and appears when it is complete.  What a block device holds is lost;
    it must not be mounted or in use, and its first and last MiB are written last.
    """
    from vsssnap import CopyOptions, OnReadError, restore_image
    from vsssnap.cli.awaited import Awaited, opened_image

    if target == STDOUT:
        raise UsageError(
            "restore writes a file or a device, not the standard output",
            hint="use `vsssnap convert IMAGE - --format raw`; a file of that name is ./-",
        )
    with opened_image(image, format_name, recover=recover, parent=parent) as reader:
        if recover:
            warn_of_parents(out, reader)
        if is_block_device(target) and not yes:
            _ask(out, reader, target)
        with interrupts.deferred(), out.progress(f"restore {target}") as progress:
            report = restore_image(
                Awaited(reader),
                target,
                verify=check,
                replace=replace,
                on_read_error=OnReadError(on_read_error),
                copy=CopyOptions(workers=workers, rate_limit=rate_limit),
                progress=progress,
                unwrap=not no_unwrap,
            )
    read_back = ", read back and equal" if report.verified else ""
    out.say(f"{image} -> {target}: {format_size(report.size)}{read_back}, {report.seconds:.1f} s")
    for extent in report.unreadable:
        out.warn(
            f"{image}: {extent.length} bytes at {extent.offset} are unreadable; {target} has zeros there"
        )
    out.document(not report.unreadable, {"image": image, "target": target, "report": report})
    return exits.FOUND if report.unreadable else exits.OK


def _ask(out: Output, reader: ImageReader, target: str) -> None:
    if out.json or not sys.stdin.isatty():
        raise UsageError(f"{target} is a block device and would be overwritten", hint="pass --yes")
    what = reader.metadata.volume or reader.path
    click.confirm(
        f"Everything on {target} will be lost.  Overwrite it with {format_size(reader.size)} of {what}?",
        abort=True,
        err=True,
    )


@command(
    "info",
    examples="""
vsssnap info data.vsnap
vsssnap info data.vsnap --json
vsssnap info half.vsnap --recover
vsssnap info /dev/sdb2
""",
)
@click.argument("image", type=PATH)
@click.option("--format", "format_name", metavar="NAME", help="Format; by default it is recognised.")
@reading_options
def info(out: Output, *, image: str, format_name: str | None, recover: bool, parent: tuple[str, ...]) -> None:
    """Show what an image holds and what it says of itself: partitions, file systems, shadow copies.

    IMAGE may be a block device, too.
    """
    from vsssnap import Depth, ExtentKind
    from vsssnap.cli.awaited import opened_image

    if format_name is None and is_block_device(image):
        _info_device(out, image)
        return
    with opened_image(image, format_name, recover=recover, parent=parent) as reader:
        states = dict.fromkeys((kind.value for kind in ExtentKind), 0)
        for extent in reader.extents():
            interrupts.check()
            states[extent.kind] += extent.length
        details = reader.info()
        # Of an increment its own file: those behind it are images of their own.
        stored = details.get("stored_size", os.stat(image).st_size)
        depths = tuple(sorted({*reader.depths(), *([Depth.CONTENT] if reader.sidecar is not None else [])}))
        values = {
            "path": image,
            "format": reader.format,
            "size": reader.size,
            "sector_size": reader.sector_size,
            "stored": stored,
            "ratio": round(states["data"] / stored, 4) if stored else None,
            "states": states,
            "depths": depths,
            "sidecar": reader.sidecar is not None,
            "metadata": _metadata(reader.metadata),
            "details": details,
        }
        values |= _inside(out, reader)
        _show(out, values, reader.metadata, ", ".join(depth.name.lower() for depth in depths))
        shadow.show(out, values)
    out.document(True, values)


def _inside(out: Output, reader: ImageReader) -> dict[str, Any]:
    """What lies on an image's volume; a warning where another file is needed to tell."""
    try:
        return {"contents": contents(reader), **shadow.contents(reader)}
    except (ImageNotFoundError, ParentMismatchError) as exc:
        out.warn(str(for_people(exc)))
        return {"contents": {}, "shadow_copies": [], "shadow_problems": ()}


def _info_device(out: Output, path: str) -> None:
    """``vsssnap info`` of a block device."""
    from vsssnap.cli.awaited import opened_device

    with opened_device(path) as reader:
        out.say(f"{path}: block device")
        size = f"{format_size(reader.size)} ({reader.size} bytes)"
        out.facts([("size", size), ("sector", f"{reader.sector_size} bytes")])
        inside, copies = contents(reader), shadow.contents(reader)
        for line in lines(inside):
            out.say(f"  {line}")
        shadow.show(out, copies)
        values = {"path": path, "format": None, "size": reader.size, "sector_size": reader.sector_size}
    out.document(True, {**values, "contents": inside, **copies})


def _metadata(metadata: ImageMetadata) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(metadata.encode())
    if metadata.consistency is not None:
        values["consistency"] = metadata.consistency  # as everywhere else in our documents
    if metadata.documents:
        values["documents"] = {name: len(data) for name, data in metadata.documents.items()}
    return values


def _show(out: Output, values: dict[str, Any], metadata: ImageMetadata, depths: str) -> None:
    # A format that compresses says itself by how much, of its own file alone.
    ratio = ""
    if values["ratio"] and "ratio" not in values["details"]:
        ratio = f", data {values['ratio']:.2f} times that"
    out.say(f"{values['path']}: {values['format']}")
    out.facts(
        [
            ("size", f"{format_size(values['size'])} ({values['size']} bytes)"),
            ("sector", f"{values['sector_size']} bytes"),
            ("stored", f"{format_size(values['stored'])}{ratio}"),
            *((kind, format_size(count)) for kind, count in values["states"].items() if count),
            ("verifiable", depths),
            ("side-car", "yes" if values["sidecar"] else "no"),
            ("volume", metadata.volume),
            ("device", metadata.device if metadata.device != metadata.volume else ""),
            ("file system", metadata.filesystem),
            ("taken", metadata.created.isoformat(sep=" ", timespec="seconds") if metadata.created else ""),
            ("provider", metadata.provider),
            ("snapshot", metadata.snapshot_id),
            ("consistency", metadata.consistency.name.lower() if metadata.consistency else ""),
            *(("writer", f"{w.name} {w.state} {w.message}".strip()) for w in metadata.writers),
            *(("excluded", pattern) for pattern in metadata.exclusions),
            *(("document", f"{name} ({len(data)} bytes)") for name, data in metadata.documents.items()),
            *(("user", f"{name}: {json.dumps(value)}") for name, value in metadata.user.items()),
            *(("note", note) for note in metadata.notes),
            *_details(values["details"]),
        ]
    )
    for line in lines(values["contents"]):
        out.say(f"  {line}")


def _details(details: Mapping[str, Any]) -> Iterator[tuple[str, str | int]]:
    """What the format says of the image, without what stands above; a list is a line for each item."""
    for name, value in details.items():
        if name in ("size", "sector_size", "states", "stored_size") or value in (None, {}, ""):
            continue
        for item in value if isinstance(value, list) else [value]:
            text = item if isinstance(item, str | int) else json.dumps(item)
            if isinstance(item, bool):
                text = "yes" if item else "no"
            if isinstance(item, dict):
                text = ", ".join(f"{key.replace('_', ' ')} {each}" for key, each in item.items())
            yield name.replace("_", " "), text


@command(
    "compare",
    short="Compare two images or block devices.",
    examples="""
vsssnap compare monday.vsnap tuesday.vsnap
vsssnap compare data.vsnap /dev/sdb1
vsssnap compare a.raw b.raw --json --limit 0
""",
)
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.option("--format-a", metavar="NAME", help="Format of A; by default it is recognised.")
@click.option("--format-b", metavar="NAME", help="Format of B.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=_SHOWN, show_default=True, help="Ranges to list; 0: all."
)
@reading_options
def compare(
    out: Output,
    *,
    a: str,
    b: str,
    format_a: str | None,
    format_b: str | None,
    limit: int,
    recover: bool,
    parent: tuple[str, ...],
) -> int:
    """Compare the volumes in two images or block devices; exit code 1 if they differ.

    It is what they hold that counts, not how: a raw image equals the vsnap image of the same volume, and
    the vhdx image in which it was put into a disk.
    """
    from vsssnap import ExtentKind, compare_blocks

    with contextlib.ExitStack() as stack:
        left = stack.enter_context(_open(a, format_a, recover, parent))
        right = stack.enter_context(_open(b, format_b, recover, parent))
        left, right = _alike(left, right)
        sizes = left.size, right.size
        progress = stack.enter_context(out.progress(f"compare {a}"))
        stack.enter_context(interrupts.deferred())
        listed, count, differing, unreadable = [], 0, 0, 0
        for extent in compare_blocks(left, right, progress=progress):
            count += 1
            if extent.kind is ExtentKind.UNREADABLE:
                unreadable += extent.length
            else:
                differing += extent.length
            if not limit or count <= limit:
                listed.append(extent)
    if not count:
        out.say(f"{a} and {b} hold the same {format_size(sizes[0])}", fg="green")
    else:
        places = "1 range" if count == 1 else f"{count} ranges"
        if differing:
            out.say(f"{a} and {b} differ in {places}, {differing} bytes", fg="red")
        else:
            out.say(f"{a} and {b} hold the same, as far as they can be read", fg="red")
        if sizes[0] != sizes[1]:
            out.say(f"  {a} has {sizes[0]} bytes, {b} has {sizes[1]}")
        if unreadable:
            out.say(f"  {unreadable} bytes cannot be read on one side")
        for extent in listed:
            out.say(
                f"  {extent.length} bytes at {extent.offset}"
                + (" unreadable" if extent.kind == "unreadable" else "")
            )
        if count > len(listed):
            out.say(f"  and {count - len(listed)} more ranges")
    values = {
        "a": {"path": a, "size": sizes[0]},
        "b": {"path": b, "size": sizes[1]},
        "equal": not count,
        "ranges": count,
        "differing": differing,
        "unreadable": unreadable,
        "listed": listed,
    }
    out.document(not count, values)
    return exits.FOUND if count else exits.OK


def _alike(a: BlockReader, b: BlockReader) -> tuple[BlockReader, BlockReader]:
    """Both as volumes, if one is a volume in a disk and the other one is that too, or a bare volume."""
    from vsssnap import from_disk
    from vsssnap.volumes.signatures import has_table

    try:
        inside = from_disk(a), from_disk(b)
        disks = [volume is whole and has_table(whole) for volume, whole in zip(inside, (a, b), strict=True)]
    except (CorruptImageError, DeviceReadError):  # no longer what was saved: every byte counts
        return a, b
    return (a, b) if any(disks) else inside


def _open(path: str, name: str | None, recover: bool, parent: tuple[str, ...]) -> BlockReader:
    from vsssnap.cli.awaited import Awaited, opened_device, opened_image

    if name is None and is_block_device(path):
        return Awaited(opened_device(path), owned=True)
    return Awaited(opened_image(path, name, recover=recover, parent=parent), owned=True)
