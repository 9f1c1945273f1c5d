"""Metadata, and what is no metadata."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from vsssnap import Consistency, ImageMetadata, WriterReport
from vsssnap.errors import CorruptImageError, UsageError

FULL = ImageMetadata(
    volume="C:",
    device="/dev/x",
    filesystem="ntfs",
    provider="vss",
    snapshot_id="7",
    created=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    consistency=Consistency.APPLICATION,
    writers=(WriterReport(name="SQL", state="STABLE", code=0x800423F4, message="no"),),
    exclusions=("pagefile.sys",),
    notes=("a sentence",),
    documents={"bcd.xml": b"\0\xff"},
    user={"job": {"n": [1, 2.5, None, True]}, "ü": "é"},
)


@pytest.mark.parametrize("metadata", [ImageMetadata(), FULL])
def test_metadata_comes_back_as_it_was(metadata: ImageMetadata) -> None:
    assert ImageMetadata.decode(metadata.encode()) == metadata
    assert metadata.encode() == metadata.encode()


def test_keys_of_later_versions_are_passed_over() -> None:
    assert ImageMetadata.decode(b'{"volume": "C:", "colour": [1]}') == ImageMetadata(volume="C:")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b'{"volume": 1}',
        b'{"notes": "x"}',
        b'{"notes": [1]}',
        b'{"created": "yesterday"}',
        b'{"created": "2026-01-01T00:00:00"}',
        b'{"consistency": "BEST"}',
        b'{"writers": [{}]}',
        b'{"writers": [{"name": "x", "code": "1"}]}',
        b'{"documents": {"a": "%"}}',
        b'{"user": []}',
        b"[" * 100_000,
    ],
)
def test_metadata_that_is_none_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptImageError):
        ImageMetadata.decode(data)


@pytest.mark.parametrize("user", [{"x": object()}, {"x": float("nan")}, {"x": b"bytes"}])
def test_metadata_that_json_cannot_hold_is_refused(user: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="JSON"):
        ImageMetadata(user=user).encode()


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(UsageError, match="time zone"):
        ImageMetadata(created=datetime(2026, 1, 1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"volume": 5}, "volume is no text"),
        ({"created": "today"}, "created is 'today', no datetime"),
        ({"consistency": 3}, "consistency is 3, no Consistency"),
        ({"writers": ("SQL",)}, "writers has str, no WriterReport"),
        ({"exclusions": "pagefile.sys"}, "exclusions is no sequence"),
        ({"notes": (1,)}, "notes is no text"),
        ({"documents": {1: b"x"}}, "a key is no text"),
        ({"documents": {"x": "text"}}, "bytes-like object is required"),
        ({"documents": [b"x"]}, "documents is no object"),
        ({"user": [1]}, "user is no object"),
    ],
)
def test_what_could_not_be_read_back_is_refused(wrong: dict[str, Any], message: str) -> None:
    """It would be written, and the image could not be opened."""
    with pytest.raises(UsageError, match=message):
        ImageMetadata(**wrong)
    with pytest.raises(UsageError, match=message):
        FULL.replace(**wrong)


@pytest.mark.parametrize("wrong", [{"code": -1}, {"code": 1 << 32}, {"code": True}, {"state": None}])
def test_a_writer_report_that_could_not_be_read_back_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"writer report 'SQL': .* is no"):
        WriterReport(**{"name": "SQL", **wrong})
