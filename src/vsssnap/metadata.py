"""What an image says of itself beside its blocks."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from vsssnap.consistency import Consistency
from vsssnap.errors import CorruptImageError, UsageError

__all__ = ["ImageMetadata", "WriterReport"]

_SURROGATE = re.compile("[\ud800-\udfff]")

_TEXTS = ("volume", "device", "filesystem", "provider", "snapshot_id")
_LISTS = ("exclusions", "notes")

MAX_ENCODED = 256 << 20
"""Most bytes that encoded metadata may have; a reader refuses more before it allocates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterReport:
    """What became of one VSS writer, or of one application that was quieted.

    Attributes:
        name: The writer's name.
        writer_id: Its class GUID, or "".
        instance_id: Its instance GUID, or "".
        state: Its last state, in the system's word (``"STABLE"``).
        code: Its failure as an unsigned HRESULT; 0 if it did not fail.
        message: Its failure in words, or "".
    """

    name: str
    writer_id: str = ""
    instance_id: str = ""
    state: str = ""
    code: int = 0
    message: str = ""

    def __post_init__(self) -> None:
        try:
            for name in ("name", "writer_id", "instance_id", "state", "message"):
                _text(getattr(self, name), name)
            _code(self.code)
        except TypeError as exc:
            raise UsageError(f"writer report {self.name!r}: {exc}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMetadata:
    """Where an image comes from and how much it promises.

    A format stores it in itself or, where it has no room, in the side-car file.  All
    fields have an empty default, so that any source can say as much as it knows.

    Attributes:
        volume: The source as the caller named it (``"C:"``, ``"/dev/vg0/data"``).
        device: The block device or file that was read.
        filesystem: Its type (``"ext4"``), or "" if unknown.
        provider: Name of the provider that took the snapshot, or "".
        snapshot_id: The snapshot's id; volumes with the same one are of the same instant.
        created: The instant, with time zone; None if there is no single one.
        consistency: What was promised; None for a source that promises nothing.
        writers: Reports of the applications that took part.
        exclusions: Paths or patterns left out.
        notes: What else a reader of the image should know, a sentence each.
        documents: Attachments by name, such as the VSS backup components document.
        user: The caller's own values; anything JSON can hold.
    """

    volume: str = ""
    device: str = ""
    filesystem: str = ""
    provider: str = ""
    snapshot_id: str = ""
    created: datetime | None = None
    consistency: Consistency | None = None
    writers: tuple[WriterReport, ...] = ()
    exclusions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    documents: Mapping[str, bytes] = field(default_factory=dict)
    user: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind in (("created", datetime), ("consistency", Consistency)):
            if not isinstance(getattr(self, name), kind | None):
                raise UsageError(f"metadata.{name} is {getattr(self, name)!r}, no {kind.__name__}")
        if self.created is not None and self.created.utcoffset() is None:
            raise UsageError("metadata.created has no time zone", hint="use datetime.now(timezone.utc)")
        # What `decode` would refuse must never get into an image, which nobody could open.
        try:
            for name in _TEXTS:
                _text(getattr(self, name), name)
            for name in _LISTS:
                for item in _sequence(getattr(self, name), name):
                    _text(item, name)
            for item in _sequence(self.writers, "writers"):
                if not isinstance(item, WriterReport):
                    raise TypeError(f"writers has {type(item).__name__}, no WriterReport")  # noqa: TRY301
            for name in (*_object(self.documents, "documents"), *_object(self.user, "user")):
                _text(name, "a key")
            for data in self.documents.values():
                memoryview(data)
        except TypeError as exc:
            raise UsageError(f"metadata: {exc}") from None

    def replace(self, **changes: Any) -> Self:  # noqa: ANN401 - any field, checked by the constructor
        """A copy with some fields changed."""
        try:
            return dataclasses.replace(self, **changes)
        except TypeError as exc:
            raise UsageError(f"metadata: {exc}") from None

    def encode(self) -> bytes:
        """The metadata as UTF-8 JSON, the same bytes for the same values; ``created`` in UTC.

        Raises:
            UsageError: ``user`` holds something JSON cannot, or the whole is above 256 MiB.
        """
        try:
            text = json.dumps(
                self._values(), ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
            )
            # A file name that is no UTF-8 holds lone surrogates (os.fsdecode); only escaped can
            # they stand in UTF-8.
            data = _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode("utf-8")
        except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as exc:
            raise UsageError(
                f"metadata cannot be written as JSON: {exc}", hint="use plain values in user"
            ) from None
        if len(data) > MAX_ENCODED:
            raise UsageError(
                f"metadata is {len(data)} bytes, above {MAX_ENCODED}", hint="attach smaller documents"
            )
        return data

    def _values(self) -> dict[str, Any]:
        """The fields that say something, as JSON has them."""
        values: dict[str, Any] = {}
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if value is None or value == item.default or (item.name in ("documents", "user") and not value):
                continue
            values[item.name] = value
        if self.created is not None:
            values["created"] = self.created.astimezone(UTC).isoformat()
        if self.consistency is not None:
            values["consistency"] = self.consistency.name
        if self.writers:
            values["writers"] = [dataclasses.asdict(writer) for writer in self.writers]
        if self.documents:
            values["documents"] = {
                name: base64.b64encode(data).decode("ascii") for name, data in self.documents.items()
            }
        if self.user:
            values["user"] = _plain(self.user)
        return values

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `encode` wrote; keys of later versions are ignored.

        Raises:
            CorruptImageError: it is no such JSON, or a value has the wrong type.
        """
        if len(data) > MAX_ENCODED:
            raise CorruptImageError(
                f"metadata is {len(data)} bytes, above {MAX_ENCODED}", structure="metadata"
            )
        try:
            values = json.loads(data.decode("utf-8"), parse_constant=_number, parse_float=_number)
            return cls(**_decoded(values))
        except (ValueError, TypeError, KeyError, RecursionError, binascii.Error) as exc:
            raise CorruptImageError(f"metadata cannot be read: {exc}", structure="metadata") from exc


def _decoded(values: object) -> dict[str, Any]:
    """Check and convert decoded JSON; raises ValueError, TypeError or KeyError."""
    if not isinstance(values, dict):
        raise TypeError("not an object")
    result: dict[str, Any] = {}
    for name in _TEXTS:
        if name in values:
            result[name] = _text(values[name], name)
    for name in _LISTS:
        if name in values:
            result[name] = tuple(_text(item, name) for item in _list(values[name], name))
    if "created" in values:
        result["created"] = datetime.fromisoformat(_text(values["created"], "created"))
    if "consistency" in values:
        result["consistency"] = Consistency[_text(values["consistency"], "consistency")]
    if "writers" in values:
        result["writers"] = tuple(_writer(item) for item in _list(values["writers"], "writers"))
    if "documents" in values:
        result["documents"] = {
            name: base64.b64decode(_text(item, "documents"), validate=True)
            for name, item in _object(values["documents"], "documents").items()
        }
    if "user" in values:
        result["user"] = _object(values["user"], "user")
    return result


def _number(text: str) -> float:
    """A number as every JSON reader takes it: JSON knows no NaN and no infinity."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number of JSON")
    return number


def _plain(value: object) -> Any:  # noqa: ANN401 - any JSON value
    """A caller's value with mappings and sequences as JSON knows them; others pass for `json` to judge.

    Raises:
        TypeError: a key is no text; JSON would make it one and give back another mapping.
    """
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is no text")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _writer(value: object) -> WriterReport:
    item = _object(value, "writers")
    texts = {
        name: _text(item[name], name)
        for name in ("name", "writer_id", "instance_id", "state", "message")
        if name in item
    }
    return WriterReport(**texts, code=_code(item.get("code", 0)))


def _code(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 0xFFFF_FFFF:
        raise TypeError("code is no unsigned number of 32 bits")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{name} is no list")
    return value


def _sequence(value: object, name: str) -> Sequence[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise TypeError(f"{name} is no sequence")
    return value


def _object(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is no object")
    return value
