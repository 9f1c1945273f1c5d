"""Opening an image with the other files it refers to.

Source: QEMU, docs/interop/qcow2.txt, sections "Header" and "Header extensions".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from vsssnap.errors import ParentMismatchError, UnknownFormatError, UnsupportedFeatureError
from vsssnap.formats._parents import HINT, named_parents
from vsssnap.formats.qcow2 import structs
from vsssnap.formats.qcow2.header import Layout, name_check, parse, unsupported
from vsssnap.formats.qcow2.reader import Files, Qcow2Reader

if TYPE_CHECKING:
    from vsssnap.formats.base import ImageReader, ResolveParent
    from vsssnap.formats.storage import Storage

QEMU_NAMES: Final = {"raw": "raw", "qcow2": "qcow2", "vhd": "vpc", "vhdx": "vhdx", "vmdk": "vmdk"}
"""Formats that a backing file may have, by our name: what qemu calls them."""

_OURS: Final = {theirs: ours for ours, theirs in QEMU_NAMES.items()} | {"file": "raw", "host_device": "raw"}
_PROTOCOL: Final = re.compile(r"([A-Za-z0-9+.-]{2,}):")  # one letter is a drive


def open_image(storage: Storage, resolve_parent: ResolveParent | None, *, recover: bool) -> Qcow2Reader:
    """Open an image; its storage is the caller's until this returns.

    Raises:
        CorruptImageError: it breaks a rule.
        UnsupportedFeatureError: it uses what cannot be read.
        ParentMismatchError: its backing file is another image, or there is no way to open it.
        ImageNotFoundError: its backing or data file is not there.
    """
    layout = parse(storage, recover=recover)
    data = _data_file(storage, layout, resolve_parent) if layout.external else None
    complete = not layout.features.incompatible_features & structs.CORRUPT
    reader = Qcow2Reader(Files(storage, layout, data, recover=recover), complete=complete)
    if layout.backing:
        reader.link(resolve_parent, lambda: _backing(storage, layout, resolve_parent))
    return reader


def _data_file(storage: Storage, layout: Layout, resolve_parent: ResolveParent | None) -> ImageReader:
    if not layout.data_file:
        raise unsupported(
            storage, "its data file has no name in it", "external data file", "record one: qemu-img amend"
        )
    return _resolver(storage, resolve_parent)([_path(storage, layout.data_file)], format="raw")


def _backing(storage: Storage, layout: Layout, resolve_parent: ResolveParent | None) -> ImageReader:
    resolve = _resolver(storage, resolve_parent)
    for parent in named_parents(resolve, _OURS.get(layout.backing_format)):
        try:
            _compare(storage, layout, parent)
        except ParentMismatchError:
            parent.close()
            continue
        return parent
    path = _path(storage, layout.backing)
    if layout.backing_format:
        name = _OURS.get(layout.backing_format)
        if name is None:
            raise unsupported(
                storage,
                f"its backing file {layout.backing!r} is a {layout.backing_format!r} image",
                f"backing format {layout.backing_format}",
            )
        parent = resolve([path], format=name)
    else:
        parent = _recognised(storage, layout, resolve, path)
    try:
        _compare(storage, layout, parent)
    except BaseException:
        parent.close()
        raise
    return parent


def _recognised(storage: Storage, layout: Layout, resolve: ResolveParent, path: str) -> ImageReader:
    """A backing file whose format nobody recorded.

    A raw one holds what a machine wrote, and that may look like an image which names any file of
    the host.  So what is only recognised must stand alone.
    """
    try:
        parent = resolve([path])
    except UnknownFormatError:
        return resolve([path], format="raw")
    if parent.info().get("parents") or len(parent.origins) > 1:
        parent.close()
        raise UnsupportedFeatureError(
            f"{storage.name}: the format of its backing file {layout.backing!r} is not recorded, and that"
            " looks like an image with a backing or data file of its own",
            path=storage.name,
            feature="backing file without a format",
            hint="if you trust it, record it: qemu-img rebase -u -b NAME -F qcow2",
        )
    return parent


def _resolver(storage: Storage, resolve_parent: ResolveParent | None) -> ResolveParent:
    if resolve_parent is None:
        raise ParentMismatchError(
            f"{storage.name} refers to other files and there is no way to open them",
            path=storage.name,
            hint="open it with open_image, or pass resolve_parent",
        )
    return resolve_parent


def _path(storage: Storage, name: str) -> str:
    """A name as a path; qemu's other ways to say where a file is are not followed."""
    found = _PROTOCOL.match(name)
    if found is None:
        return name
    if found[1] == "file":
        return name[len("file:") :]
    raise unsupported(
        storage,
        f"it refers to {name!r}, which is no path",
        f"protocol {found[1]}",
        "make it a path: qemu-img rebase -u -b NAME -F FORMAT",
    )


def identity_of(reader: ImageReader) -> str:
    """``"format:identity"`` of an image, or "" if its format has none."""
    identity = reader.info().get("identity", "")
    return f"{reader.format}:{identity}" if identity else ""


def _compare(storage: Storage, layout: Layout, parent: ImageReader) -> None:
    """Hold a parent against what was recorded when the child was made."""
    lineage = layout.lineage
    # With another name someone has rebased the image, and the record speaks of the parent before.
    if lineage is None or lineage.name_check != name_check(layout.backing):
        return
    found = identity_of(parent)
    if (found, parent.size) != (lineage.parent, lineage.parent_size):
        raise ParentMismatchError(
            f"{storage.name} was made against {lineage.parent or 'an image without identity'} of"
            f" {lineage.parent_size} bytes; {parent.path or layout.backing} is"
            f" {found or 'without identity'}, of {parent.size} bytes",
            path=storage.name,
            hint=HINT,
        )
