"""Frames: building them, and reading one so that nothing unchecked is ever used.

Source: docs/formats/vsnap.md, sections 2 and 11.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import xxhash

from vsssnap.errors import CorruptImageError, DeviceReadError, UnsupportedFeatureError
from vsssnap.formats.vsnap import structs
from vsssnap.formats.vsnap.structs import CHECK_AT, HEAD, FrameHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vsssnap.formats.storage import Storage

_LIKELY = 512  # bytes of most boxes, at most
_HEAD = struct.Struct("<II8sHHIQ16s")  # FrameHead up to its check; the writer's hot path


class Frame(NamedTuple):
    """A frame whose box has passed its check.

    Attributes:
        head: Its fixed part.
        body: The rest of the box.
        offset: Where it begins in its file.
    """

    head: FrameHead
    body: bytes
    offset: int

    @property
    def box_end(self) -> int:
        """First byte behind the box: where the outer payload begins."""
        return self.offset + 8 + self.head.box_length

    @property
    def end(self) -> int:
        """First byte behind the frame."""
        return self.box_end + self.head.outer_length

    @property
    def name(self) -> str:
        """The type in the specification's words."""
        return structs.TYPE_NAMES.get(self.head.type, f"frame of type {self.head.type}")


def build(
    kind: int,
    position: int,
    image_id: bytes,
    body: Sequence[bytes | bytearray | memoryview],
    *,
    outer_length: int = 0,
    critical: bool = True,
) -> list[bytes | bytearray | memoryview]:
    """The pieces of a box, ready for `Storage.append`; the outer payload is the caller's to add."""
    length = HEAD - 8 + sum(map(len, body))
    flags = (structs.CRITICAL if critical else 0) | (structs.OUTER if outer_length else 0)
    head = _HEAD.pack(structs.SKIPPABLE, length, structs.MAGIC, kind, flags, outer_length, position, image_id)
    check = xxhash.xxh3_128(head)
    for part in body:
        check.update(part)
    return [head + check.digest(), *body]


def corrupt(message: str, structure: str, offset: int | None, path: str = "") -> CorruptImageError:
    """The error for damage at a place of the file."""
    where = f"{path or 'the image'}: " + (f"{structure} at {offset}: " if offset is not None else "")
    return CorruptImageError(
        where + message,
        path=path,
        structure=structure,
        offset=offset,
        hint="restore the file from another copy, or open it with recover=True",
    )


def parse_head(
    data: bytes, offset: int, size: int, image_id: bytes | None, path: str = "", due: str = "frame"
) -> FrameHead:
    """Check the fixed part of a frame as far as it can be without the box.

    Args:
        data: The 64 bytes.
        offset: Where they lie in the file.
        size: Bytes of the file; the frame must end inside.
        image_id: The file's id; None to take any.
        path: The file, for messages.
        due: What was looked for, for messages.

    Raises:
        CorruptImageError: no frame of this file begins here.
    """
    head = FrameHead.unpack(data)
    if head.skippable != structs.SKIPPABLE or head.magic != structs.MAGIC:
        raise corrupt(f"no frame begins here (found {data[:16].hex()})", due, offset, path)
    end = offset + 8 + head.box_length + head.outer_length
    if head.box_length < HEAD - 8 or head.box_length > structs.MAX_BOX or end > size:
        raise corrupt(
            f"box of {head.box_length} and payload of {head.outer_length} bytes do not fit in {size}",
            due,
            offset,
            path,
        )
    if head.position != offset:
        raise corrupt(f"frame says it lies at {head.position}", due, offset, path)
    if image_id is not None and head.image_id != image_id:
        raise corrupt(f"frame of another image ({head.image_id.hex()})", due, offset, path)
    return head


def check_box(
    head: FrameHead, box: bytes | memoryview, offset: int, path: str = "", due: str = "frame"
) -> None:
    """Compare a whole box with its check, then its flags with the rules.

    Raises:
        CorruptImageError: it was damaged, or its flags contradict it.
        UnsupportedFeatureError: a frame that must be understood and is not.
    """
    view = memoryview(box)
    check = xxhash.xxh3_128(view[:CHECK_AT])
    check.update(view[HEAD:])
    if check.digest() != head.check:
        raise corrupt("the check of the frame does not agree", due, offset, path)
    if head.type not in structs.WITH_BODY and head.flags & structs.CRITICAL:
        name = structs.TYPE_NAMES.get(head.type, f"frame type {head.type}")
        raise UnsupportedFeatureError(
            f"{path or 'the image'}: frame at {offset} needs {name}, which this version does not know",
            path=path,
            feature=name,
            hint="use a newer vsssnap",
        )
    if head.type not in structs.WITH_BODY:
        if head.flags or head.outer_length:
            raise corrupt(f"flags {head.flags} do not suit an optional frame", "frame", offset, path)
        return
    if head.flags & structs.ENCRYPTED:
        raise UnsupportedFeatureError(
            f"{path or 'the image'}: frame at {offset} is encrypted",
            path=path,
            feature="encrypted",
            hint="use a newer vsssnap",
        )
    outer = head.type == structs.DATA_FRAME
    if head.flags != structs.CRITICAL | (structs.OUTER if outer else 0) or bool(head.outer_length) != outer:
        raise corrupt(f"flags {head.flags} do not suit type {head.type}", "frame", offset, path)


def read_frame(
    storage: Storage, offset: int, size: int, image_id: bytes | None, *, length: int = 0, kind: int = 0
) -> Frame:
    """Read and check the box of a frame.

    Args:
        storage: The file.
        offset: Where the frame begins.
        size: Bytes of the file.
        image_id: The file's id; None to take any.
        length: What a reference says that the box, with its first eight bytes, is long;
            saves a read, and is compared.
        kind: The type that a reference says it is of; compared.

    Raises:
        CorruptImageError: the frame is damaged, cut short or another one.
        UnsupportedFeatureError: a frame that must be understood and is not.
    """
    path, due = storage.name, structs.TYPE_NAMES.get(kind, "frame")
    if offset < 0 or offset + max(length, HEAD) > size or (length and length < HEAD):
        raise corrupt(
            f"frame of {max(length, HEAD)} bytes reaches behind the end at {size}", due, offset, path
        )
    try:
        box = storage.pread(length or min(_LIKELY, size - offset), offset)
    except DeviceReadError:
        if length:
            raise
        box = storage.pread(HEAD, offset)  # what fails may lie behind the box
    head = parse_head(box[:HEAD], offset, size, image_id, path, due)
    whole = head.box_length + 8
    if length and whole != length:
        raise corrupt(f"box is {whole} bytes long, not {length}", due, offset, path)
    if len(box) < whole:
        box += storage.pread(whole - len(box), offset + len(box))
    return finish_frame(head, memoryview(box)[:whole], offset, kind, path)


def finish_frame(head: FrameHead, box: bytes | memoryview, offset: int, kind: int, path: str) -> Frame:
    """Check a box that is in memory whole; the rest as in `read_frame`."""
    check_box(head, box, offset, path, structs.TYPE_NAMES.get(kind, "frame"))
    if kind and head.type != kind:
        found = structs.TYPE_NAMES.get(head.type, str(head.type))
        raise corrupt(f"a {found} lies here", structs.TYPE_NAMES[kind], offset, path)
    return Frame(head, bytes(box[HEAD:]), offset)
