"""Verify an image: damage is reported, never raised."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vsssnap._arguments import instance, path_text
from vsssnap.errors import (
    CorruptImageError,
    DeviceReadError,
    ImageError,
    ImageNotFoundError,
    ParentMismatchError,
    UsageError,
)
from vsssnap.formats.base import Depth, Finding, ImageReader
from vsssnap.imaging.chain import find_format, open_storage
from vsssnap.imaging.opening import open_image
from vsssnap.imaging.reports import Meter, VerifyReport

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from vsssnap.imaging.reports import ProgressCallback

_MOST = 1000  # findings that a report lists; it counts all


def verify_image(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    depth: Depth | None = None,
    recover: bool = False,
    parent: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    progress: ProgressCallback | None = None,
) -> VerifyReport:
    """Check an image against the checksums it carries or has beside it.

    Args:
        path: The image.
        format: Name of its format; by default it is recognised.
        depth: How deep to look; by default as deep as can be without decompressing.
        recover: Where the image does not open, say so and go on to check what is left of it.  So where
            images behind a ``.vsnap`` are not there; other formats cannot do without theirs.
        parent: Where its parents are, as in `open_image`.
        progress: Called with a `Progress` about ten times a second, in this thread.

    Returns:
        What was found; ``ok`` speaks of ``depth``, the depth that was reached.

    Raises:
        UsageError: ``depth`` cannot be had for this image.
        ImageNotFoundError: there is no such image, or an image behind it is not there.
        ParentMismatchError: an image behind it is another one than it was made against.
        UnknownFormatError: no format recognises it.
        UnsupportedFeatureError: it uses what this version does not know.
    """
    name = path_text(path)
    if depth is not None:
        instance(depth, Depth, "depth")
    started = time.monotonic()
    broken: list[Finding] = []
    try:
        reader = open_image(name, format=format, parent=parent)
        if recover and _lacks_parents(reader):
            reader.close()
            reader = open_image(name, format=format, recover=True, parent=parent)
    except (CorruptImageError, DeviceReadError) as exc:
        if not recover:
            return _broken(name, format, exc, started)
        broken.append(_finding(exc))
        try:
            reader = open_image(name, format=format, recover=True, parent=parent)
        except (CorruptImageError, DeviceReadError) as worse:
            return _broken(name, format, worse, started)
    with reader:
        sidecar = reader.sidecar
        own = reader.depths()
        depths = tuple(sorted({*own, Depth.CONTENT})) if sidecar is not None else own
        # Content by a side-car needs no decompression exactly where the format stores plain bytes.
        plain = sidecar is not None and reader.plain
        chosen = depth
        if chosen is None:
            chosen = max((d for d in depths if d < Depth.CONTENT or plain), default=depths[0])
        if chosen not in depths:
            have = ", ".join(d.name for d in depths)
            raise UsageError(
                f"{name}: depth {chosen.name} cannot be had for format {reader.format!r}",
                hint=f"it has {have}"
                + (
                    "" if sidecar else "; an image that is saved with the option sidecar=True has CONTENT too"
                ),
            )
        meter = Meter(progress, reader.size, "verify")
        found = broken
        count = len(found)
        for finding in _findings(reader, chosen, own, meter):
            count += 1
            if len(found) < _MOST:
                found.append(finding)
        meter.enter("done")
        return VerifyReport(
            path=name,
            format=reader.format,
            depth=chosen,
            depths=depths,
            findings=tuple(found),
            count=count,
            size=reader.size,
            checked=meter.done,
            sidecar=sidecar is not None and chosen is Depth.CONTENT,
            seconds=time.monotonic() - started,
        )


def _lacks_parents(reader: ImageReader) -> bool:
    try:
        reader.require_parents()
    except (ImageNotFoundError, ParentMismatchError):
        return True
    except (ImageError, DeviceReadError):
        pass  # damage is found by the check itself
    return False


def _findings(reader: ImageReader, depth: Depth, own: tuple[Depth, ...], meter: Meter) -> Iterator[Finding]:
    beside = reader.sidecar if depth is Depth.CONTENT else None
    try:
        # Of two passes the longer one is the progress.
        shown = meter.settle if beside is None else lambda count: meter.settle(0)
        yield from reader.verify(max(d for d in own if d <= depth), shown)
        if beside is not None:
            from vsssnap.formats.sidecar import verify_with_sidecar

            yield from verify_with_sidecar(reader, beside, meter.settle)
    except (CorruptImageError, DeviceReadError) as exc:
        # A format should report and go on; what it raises all the same is damage too.
        yield _finding(exc)


def _finding(exc: CorruptImageError | DeviceReadError) -> Finding:
    structure = exc.structure if isinstance(exc, CorruptImageError) else "file"
    return Finding(structure or "image", exc.offset, str(exc))


def _broken(
    name: str, format: str | None, exc: CorruptImageError | DeviceReadError, started: float
) -> VerifyReport:
    """An image that does not even open."""
    with open_storage(name) as storage:
        found = find_format(storage, name, format).name
    return VerifyReport(
        path=name,
        format=found,
        depth=Depth.STRUCTURE,
        depths=(Depth.STRUCTURE,),
        findings=(_finding(exc),),
        count=1,
        seconds=time.monotonic() - started,
    )
