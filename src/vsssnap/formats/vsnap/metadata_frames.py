"""Metadata and attachments.

Source: docs/formats/vsnap.md, section 7.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import zstandard

from vsssnap.errors import CorruptImageError, UsageError
from vsssnap.formats.vsnap import structs
from vsssnap.formats.vsnap.codec import decompress, most_stored
from vsssnap.formats.vsnap.structs import AttachmentBody
from vsssnap.metadata import ImageMetadata

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vsssnap.formats.vsnap.chain import OpenFile

_HEAD = struct.Struct("<II")
_PLACE = struct.Struct("<QI")


def pack_attachments(documents: Mapping[str, bytes]) -> list[list[bytes]]:
    """The bodies of all attachments.

    Raises:
        UsageError: there are too many, a name cannot be written, or they are too long.
    """
    if len(documents) > structs.MAX_ATTACHMENTS:
        raise UsageError(f"{len(documents)} documents, at most {structs.MAX_ATTACHMENTS} can be attached")
    total = sum(map(len, documents.values()))
    if total > structs.MAX_PAYLOAD:
        raise UsageError(
            f"documents of {total} bytes cannot be attached, at most {structs.MAX_PAYLOAD} altogether",
            hint="attach smaller documents",
        )
    return [_pack_attachment(name, data) for name, data in documents.items()]


def _pack_attachment(name: str, data: bytes) -> list[bytes]:
    try:
        text = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as exc:
        raise UsageError(f"a document cannot be called {name!r}: {exc}", hint="use text for names") from None
    if not 0 < len(text) <= structs.MAX_NAME:
        raise UsageError(
            f"a document cannot have a name of {len(text)} bytes ({name[:50]!r})",
            hint=f"use names of 1 to {structs.MAX_NAME} bytes",
        )
    packed = zstandard.ZstdCompressor(level=3).compress(data) if data else b""
    smaller = bool(data) and len(packed) < len(data)
    return [AttachmentBody(smaller, 0, len(text), len(data)).pack(), text, packed if smaller else bytes(data)]


def pack_metadata(text: bytes, places: Sequence[tuple[int, int]]) -> list[bytes]:
    """The body of the metadata frame.

    Args:
        text: The metadata without documents, as JSON.
        places: Offset and length of the attachments.
    """
    return [_HEAD.pack(len(text), len(places)), *(_PLACE.pack(*place) for place in places), text]


def read_metadata(file: OpenFile, offset: int, length: int) -> ImageMetadata:
    """Read the metadata and everything attached.

    Raises:
        CorruptImageError: a frame is damaged or breaks a rule of section 7.
    """
    path = file.storage.name
    body = file.frame(offset, length, structs.METADATA).body
    if len(body) < _HEAD.size:
        raise _broken("cut short", offset, path)
    size, count = _HEAD.unpack_from(body)
    at = _HEAD.size + count * _PLACE.size
    if size > structs.MAX_PAYLOAD or count > structs.MAX_ATTACHMENTS or at + size != len(body):
        raise _broken(f"{count} attachments and {size} bytes of JSON in {len(body)}", offset, path)
    documents: dict[str, bytes] = {}
    total = 0
    for place, box in _PLACE.iter_unpack(body[_HEAD.size : at]):
        if place >= offset:
            raise _broken(f"an attachment at {place}, behind", offset, path)
        frame = file.frame(place, box, structs.ATTACHMENT)
        head = AttachmentBody.unpack(frame.body)
        total += head.plain_length
        name_end = AttachmentBody.SIZE + head.name_length
        data = frame.body[name_end:]
        wrong = (
            head.encoding > 1
            or head.reserved
            or not 0 < head.name_length <= structs.MAX_NAME
            or name_end > len(frame.body)
            or total > structs.MAX_PAYLOAD
            or (
                len(data) > most_stored(head.plain_length)
                if head.encoding
                else len(data) != head.plain_length
            )
        )
        if wrong:
            raise _broken(f"attachment of {head.plain_length} bytes in {len(data)}", place, path)
        if head.encoding:
            data = decompress(data, head.plain_length, place, path)
        name = frame.body[AttachmentBody.SIZE : name_end].decode("utf-8", "surrogateescape")
        documents[name] = data
    try:
        return ImageMetadata.decode(body[at:]).replace(documents=documents)
    except CorruptImageError as exc:
        raise exc.at(path, offset) from None


def _broken(message: str, offset: int, path: str) -> CorruptImageError:
    return CorruptImageError(
        f"{path or 'the image'}: metadata: {message}", path=path, structure="metadata", offset=offset
    )
