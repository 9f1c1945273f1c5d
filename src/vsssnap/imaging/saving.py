"""Save a source as an image."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vsssnap._arguments import instance
from vsssnap.blocks.pipeline import pump
from vsssnap.blocks.reader import as_reader
from vsssnap.errors import UsageError
from vsssnap.formats.base import ImageReader
from vsssnap.formats.storage import Storage
from vsssnap.imaging.copying import known_policy, transfer
from vsssnap.imaging.files import size_of
from vsssnap.imaging.opening import begin_image
from vsssnap.imaging.reports import CopyOptions, Meter, OnReadError
from vsssnap.imaging.wrapping import moved, wrapped, wrapping_for
from vsssnap.metadata import ImageMetadata

if TYPE_CHECKING:
    import os

    from vsssnap.blocks.extent import Extent
    from vsssnap.blocks.reader import SupportsPread
    from vsssnap.imaging.reports import CopyReport, ProgressCallback


def save_image(
    source: SupportsPread,
    target: str | os.PathLike[str] | Storage,
    *,
    format: str | None = None,
    options: object = None,
    parent: ImageReader | None = None,
    changes: Iterable[Extent] | None = None,
    metadata: ImageMetadata | None = None,
    replace: bool = False,
    on_read_error: OnReadError = OnReadError.RAISE,
    copy: CopyOptions | None = None,
    progress: ProgressCallback | None = None,
    wrap: bool | None = None,
) -> CopyReport:
    """Save a source as an image: complete under its name, or not there at all.

    A volume in a format that holds disks (vhd, vhdx, vmdk) becomes the only partition of a disk, as
    by `as_disk`, for no system mounts a bare volume from such an image; `restore_image` gives back
    the volume.  A source is a volume if it does not begin with a partition table, and comes from a
    snapshot or holds a file system.

    The image is written to ``<target>.partial``, flushed, and renamed only after the source has
    confirmed that it still exists, so a lost snapshot never makes a good-looking image.

    Args:
        source: A reader (``Snapshot.open()``, `open_device`, `open_image`), or anything with
            ``size`` and ``pread(length, offset)``.
        target: The image's name, or a `Storage` such as a `PipeStorage` (then with ``format``).
        format: Name of the format; by default that of the suffix.
        options: The format's options.
        parent: The image of which this is an increment.  The data of a ``.vsnap`` is not read: its
            checksums tell what differs, and `verify_image` of the increment whether it is whole.
        changes: The ranges in which the source may differ from ``parent``, ascending; nothing else is
            read.  What is named and did not change costs a read, no more.  By default all is compared.
        metadata: Kept with the image in place of the source's own.
        replace: Whether an existing image of the name is replaced when this one is complete.
        on_read_error: What to do when the source cannot be read.
        copy: How the copy runs.
        progress: Called with a `Progress` about ten times a second, in this thread.
        wrap: Whether a disk is put around the source; None for what is said above, and for an
            increment as the parent is.

    Raises:
        UsageError: ``changes`` without ``parent``, with a side-car, or of ranges that do not ascend
            inside the volume.
        ImageNotFoundError: an image that the parent needs is not there; see `ImageReader.require_parents`.
        TargetRefusedError: the name exists, is a link or is being read; nothing was touched.
        TargetError: the target's disk is full or failing.
        DeviceReadError: the source failed.
        SnapshotLostError: the snapshot was lost.
        SourceChangedError: the source was written while it had to be still.
    """
    given = reader = as_reader(source)
    if changes is not None:
        instance(changes, Iterable, "changes", "give Extent objects")
        if parent is None:
            raise UsageError("changes were given without a parent", hint="pass the image to compare with")
    on_read_error = known_policy(on_read_error)
    if parent is not None:
        instance(parent, ImageReader, "parent", "open it with open_image")
    if metadata is not None:
        instance(metadata, ImageMetadata, "metadata")
    started = time.monotonic()
    where = wrapping_for(reader, target, format, options, parent, wrap)
    if where is not None:
        reader, metadata = wrapped(given, where, metadata), None
        changes = None if changes is None else moved(changes, given.size, reader)
    origins = (*reader.origins, *(parent.origins if parent else ()))
    writer = begin_image(
        target, reader.size, format=format, options=options, parent=parent, replace=replace, origins=origins
    )
    try:
        if changes is not None and writer.sidecar:
            raise UsageError(
                f"{writer.path}: a side-car has a checksum of every block, and changes= reads only some",
                hint="leave out changes, or write the image without a side-car",
            )
        meter = Meter(progress, reader.size, "copy")
        counts = transfer(reader, writer, copy or CopyOptions(), on_read_error, meter, changes)
        meter.enter("finish")
        said = metadata if metadata is not None else reader.metadata
        if isinstance(target, Storage):
            # It may be a pipe that nobody reads: this thread must stay free for what ends the save.
            pump(
                (writer,), lambda it, _: it.finish(said), _nothing, buffer_size=0, workers=1, tick=meter.tick
            )
        else:
            writer.finish(said)
        meter.enter("done")
    finally:
        writer.close()
    stored = None if isinstance(target, Storage) else size_of(writer.path)
    return counts.report(
        reader.size,
        writer,
        started,
        path=writer.path,
        format=writer.format,
        stored=stored,
        wrapped=where is not None,
    )


def _nothing(*_: object) -> None:
    """What is left to do with a result that is none."""
