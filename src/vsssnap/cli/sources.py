"""What can be known of a source, and be wrong with it, before a snapshot is taken."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from typing import TYPE_CHECKING

from vsssnap._units import MIB
from vsssnap.cli.wording import for_people
from vsssnap.errors import (
    DeviceReadError,
    ImageError,
    ImageNotFoundError,
    ParentMismatchError,
    UnknownFormatError,
    UsageError,
    VssSnapError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vsssnap.cli.output import Output
    from vsssnap.cli.targets import Plan
    from vsssnap.cli.views import Part
    from vsssnap.formats.base import ImageReader
    from vsssnap.snapshot import Snapshot


def refuse_images(sources: Sequence[str], input_format: str | None) -> None:
    """Refuse files that are images: their volume is meant, not their bytes.

    Raises:
        UsageError: a source is an image, by ``input_format`` or by what it holds.
    """
    from vsssnap.formats.base import SIDECAR_SUFFIX
    from vsssnap.imaging.chain import find_format, open_storage

    for source in sources:
        if input_format == "raw" or not _is_file(source):
            continue
        try:
            with open_storage(source) as storage:
                name = find_format(storage, source, input_format).name
        except UnknownFormatError:
            continue
        if name == "raw" and os.path.isfile(source + SIDECAR_SUFFIX):
            raise UsageError(
                f"{source} is an image with a side-car, with which what is saved would not be compared",
                hint=f"`vsssnap convert {source} TARGET` does; "
                "for the bytes as they are, pass --input-format raw",
            )
        if name != "raw":
            raise UsageError(
                f"{source} is a {name} image, and what is saved would be the file's own bytes",
                hint=f"`vsssnap convert {source} TARGET` writes its volume in another format; "
                "for the bytes as they are, pass --input-format raw",
            )


def warn_of_parents(out: Output, reader: ImageReader) -> None:
    """Say which image behind one that is recovered is missing: what lies in it looks unreadable."""
    from vsssnap.cli import interrupts

    try:
        interrupts.aside(reader.require_parents)
    except (ImageNotFoundError, ParentMismatchError) as exc:
        out.warn(str(for_people(exc)))
    except (ImageError, DeviceReadError):
        pass  # it is damaged: the ranges that are lost by it are told


def check_plans(
    plans: Sequence[Plan],
    *,
    part: Part | None,
    parent: ImageReader | None,
    replace: bool,
    wrap: bool | None,
) -> None:
    """Refuse what the images would be refused for once all is quiet and frozen.

    Raises:
        VssSnapError: as `vsssnap.check_save`.
    """
    from vsssnap.cli.targets import STDOUT
    from vsssnap.imaging.planning import check_format, check_save

    for plan in plans:
        size = _size_of(plan, part, parent, wrap)
        if plan.target == STDOUT:
            check_format(plan.driver, "standard output", size, plan.options, parent, seekable=False)
            continue
        check_save(
            plan.target,
            size,
            format=plan.driver.name,
            options=plan.options,
            parent=parent,
            replace=replace,
            origins=(plan.source,),
        )


def warn_of_places(out: Output, places: Iterable[tuple[str, str]]) -> None:
    """Say where an image would lie on the volume that it is of.

    Args:
        out: Where it is told.
        places: Volumes that are imaged, and where to.
    """
    from vsssnap.cli.targets import STDOUT

    for source, target in places:
        if target == STDOUT:
            continue
        with contextlib.suppress(OSError, ValueError):
            found = os.stat(source)
            folder = os.stat(os.path.dirname(target) or ".")
            device = found.st_dev if stat.S_ISDIR(found.st_mode) else getattr(found, "st_rdev", 0)
            if device and folder.st_dev == device and not stat.S_ISREG(found.st_mode):
                out.warn(
                    f"{target} lies on {source}, which is being imaged: the image takes the room"
                    " that the snapshot needs for what is overwritten, and is lost with the volume;"
                    " name a place elsewhere"
                )


def warn_of_doubles(out: Output, snapshot: Snapshot) -> None:
    """Say where two names are one volume."""
    names: dict[str, str] = {}
    for name, volume in snapshot.volumes.items():
        first = names.setdefault(volume.device or name, name)
        if first != name:
            out.warn(f"{first} and {name} are the same volume, and each gets an image of it")


def _size_of(plan: Plan, part: Part | None, parent: ImageReader | None, wrap: bool | None) -> int:
    """Bytes that an image will have; where only a snapshot can tell, a size that does not matter."""
    from vsssnap import open_device
    from vsssnap.imaging.wrapping import wrapped, wrapping_for

    with contextlib.ExitStack() as stack:
        try:
            source = stack.enter_context(open_device(device_of(plan.source) or plan.source))
            if part is not None:
                source = stack.enter_context(part.of(source, plan.source))
        except (VssSnapError, OSError):
            return parent.size if parent is not None else MIB
        where = wrapping_for(source, plan.target, plan.driver.name, plan.options, parent, wrap)
        return source.size if where is None else wrapped(source, where, None).size


def device_of(source: str) -> str:
    """The device behind a mount point, or ""."""
    if sys.platform != "win32" and os.path.isdir(source):
        from vsssnap._posix import mounts

        with contextlib.suppress(VssSnapError):
            found = mounts.containing(source).source
            return found if found.startswith("/") else ""
    return ""


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False
