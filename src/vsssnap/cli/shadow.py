"""Shadow copies that lie on a volume: listed by ``vsssnap info``, taken out by ``vsssnap save --shadow``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from vsssnap._units import format_size
from vsssnap.cli.common import PATH, is_block_device
from vsssnap.cli.views import part_of
from vsssnap.errors import DeviceReadError, ImageError, UnknownFormatError, UsageError

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

    from vsssnap.blocks.reader import BlockReader
    from vsssnap.cli.output import Output
    from vsssnap.volumes import ShadowReader, ShadowStore, ShadowVolume

FuncT = TypeVar("FuncT", bound="Callable[..., Any]")

# Options of `save` that are about taking a snapshot, by their names in its arguments.
_ABOUT_SNAPSHOTS = {
    "provider": "provider",
    "provider_options": "provider-option",
    "services": "stop-service",
    "before": "before",
    "after": "after",
    "claims_application": "claims-application",
    "uncovered": "uncovered",
    "live": "live",
}


def shadow_options(function: FuncT) -> FuncT:
    """The options of ``save`` about shadow copies on SOURCE."""
    for option in reversed(
        (
            click.option(
                "--shadow",
                metavar="NUMBER|ID",
                help="Save a shadow copy that lies on SOURCE, a device or an image; see `vsssnap info`.",
            ),
            click.option(
                "--shadow-storage",
                type=PATH,
                help="With --shadow: the volume that holds SOURCE's shadow storage, if that is another.",
            ),
            click.option(
                "--shadow-unused",
                type=click.Choice(["zero", "windows", "current", "error"]),
                help="With --shadow: what blocks hold that were not in use then.  [default: zero]",
            ),
        )
    ):
        function = option(function)
    return function


def opened(stack: contextlib.ExitStack, source: str, given: dict[str, Any]) -> ShadowReader:
    """The shadow copy on SOURCE, or on a part of it, that the options of ``save`` name.

    Raises:
        UsageError: there is none of that name, or other options do not go with it.
    """
    refuse_snapshot_options(given, "--shadow", "it reads a shadow copy that is there and takes no snapshot")
    volume = stack.enter_context(_open(source, given["input_format"]))
    part = part_of(given)
    if part is not None:
        volume = stack.enter_context(part.of(volume, source))
        source = f"{part} of {source}"
    return on_volume(stack, volume, source, given)


def refuse_snapshot_options(given: dict[str, Any], what: str, why: str) -> None:
    """Refuse options of ``save`` that are about a snapshot where none is taken.

    Raises:
        UsageError: one of them was given.
    """
    refused = [option for name, option in _ABOUT_SNAPSHOTS.items() if given[name] and f"--{option}" != what]
    if given["require"] != "crash":
        refused.append("require")
    if refused:
        raise UsageError(f"{what} does not go with --{refused[0]}", hint=why)


def on_volume(
    stack: contextlib.ExitStack, volume: BlockReader, source: str, given: dict[str, Any]
) -> ShadowReader:
    """The shadow copy on a volume that the options of ``save`` name; ``source``: what the user calls it.

    Raises:
        UsageError: there is none of that name.
    """
    from vsssnap.volumes import ShadowVolume, UnusedBlocks

    storage = stack.enter_context(_open(given["shadow_storage"])) if given["shadow_storage"] else None
    shadow = ShadowVolume(volume, storage)
    wanted = given["shadow"]
    store = shadow.find(int(wanted) if wanted.isdecimal() and len(wanted) < 10 else wanted)
    if store is None:
        raise UsageError(
            f"{source} has no shadow copy {wanted}, but {_count(shadow)}", hint=f"see `vsssnap info {source}`"
        )
    return stack.enter_context(store.open(UnusedBlocks(given["shadow_unused"] or "zero")))


def check_alone(given: dict[str, Any]) -> None:
    """Refuse options that say something about a shadow copy where none is named.

    Raises:
        UsageError: there are such.
    """
    for name in ("storage", "unused"):
        if given[f"shadow_{name}"]:
            raise UsageError(f"--shadow-{name} without --shadow", hint="name the shadow copy")


def _open(path: str, format: str | None = None) -> BlockReader:
    from vsssnap.cli.awaited import opened_device, opened_image

    if is_block_device(path) and format in (None, "raw"):
        return opened_device(path)
    try:
        return opened_image(path, format)
    except UnknownFormatError:  # bytes of a volume under any name
        return opened_device(path)


def _count(shadow: ShadowVolume) -> str:
    count = len(shadow.stores)
    return "none at all" if not count else "1, the number 1" if count == 1 else f"the numbers 1 to {count}"


def contents(reader: BlockReader) -> dict[str, Any]:
    """The ``shadow_copies`` of a volume, oldest first, and ``shadow_problems`` of their catalog."""
    from vsssnap.volumes import ShadowVolume

    # An image of a shadow copy shows the header of its volume, and nothing of the storage.
    if reader.metadata.provider == "vss":
        return {"shadow_copies": [], "shadow_problems": ()}
    try:
        shadow = ShadowVolume(reader)
        found = [_values(store) for store in shadow.stores]
    except (ImageError, DeviceReadError) as exc:
        return {"shadow_copies": [], "shadow_problems": (str(exc),)}
    return {"shadow_copies": found, "shadow_problems": shadow.problems}


def show(out: Output, found: dict[str, Any]) -> None:
    """Show what `contents` found, if it is anything."""
    for problem in found["shadow_problems"]:
        out.warn(f"its shadow copies: {problem}")
    copies = found["shadow_copies"]
    if copies:
        out.say(f"  {len(copies)} shadow {'copy' if len(copies) == 1 else 'copies'}:")
        out.table([("    ", "", "taken", "id", "size", "what"), *map(_row, copies)])
    for values in copies:
        for reason in values["reasons"]:
            out.say(f"    {values['number']}: {reason}")


def _values(store: ShadowStore) -> dict[str, Any]:
    health = store.health
    return {
        "number": store.number,
        "copy_id": store.copy_id,
        "store_id": store.store_id,
        "set_id": store.set_id,
        "created": store.created,
        "size": store.size,
        "machine": store.machine,
        "flags": int(store.flags),
        "attributes": int(store.attributes),
        "offline": store.offline,
        "scoped": store.scoped,
        "readable": health.readable,
        "reasons": health.reasons,
    }


def _row(values: dict[str, Any]) -> tuple[str, ...]:
    words = [word for word in ("offline", "scoped") if values[word]]
    if not values["readable"]:
        words.append("unreadable")
    created = values["created"]
    return (
        "    ",
        str(values["number"]),
        "?" if created is None else f"{created:%Y-%m-%d %H:%M:%S %Z}",
        str(values["copy_id"] or values["store_id"]),
        format_size(values["size"]),
        ", ".join([*words, *([f"by {values['machine']}"] if values["machine"] else [])]),
    )
