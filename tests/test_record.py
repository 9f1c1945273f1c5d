"""Binary records."""

from __future__ import annotations

import copy
import dataclasses
import struct

import pytest

from vsssnap._record import U8, U32, U64, Bytes8, Record
from vsssnap.errors import CorruptImageError


class Little(Record, size=21, byteorder="<"):
    """A record of the tests."""

    magic: Bytes8
    kind: U8
    length: U32
    offset: U64


def test_a_record_lies_where_its_specification_says() -> None:
    record = Little(b"magic!!!", 7, 0x01020304, 5)
    assert record.pack() == b"magic!!!" + b"\7" + b"\4\3\2\1" + struct.pack("<Q", 5)
    assert Little.unpack(b"xx" + record.pack(), 2) == record
    assert (Little.SIZE, Little.OFFSETS) == (21, {"magic": 0, "kind": 8, "length": 9, "offset": 13})


@pytest.mark.parametrize(("length", "offset"), [(0, 0), (20, 0), (21, 1), (21, 100), (21, -1)])
def test_a_record_that_is_cut_short_is_corrupt(length: int, offset: int) -> None:
    with pytest.raises(CorruptImageError) as caught:
        Little.unpack(bytes(length), offset)
    assert caught.value.structure == "Little"


def test_a_record_of_another_size_than_specified_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="is 4 bytes, the specification says 5"):

        class Wrong(Record, size=5, byteorder=">"):
            value: U32


def test_a_record_takes_its_fields_in_order_or_by_name_all_of_them() -> None:
    record = Little(b"magic!!!", 7, offset=5, length=4)
    assert record == Little(magic=b"magic!!!", kind=7, length=4, offset=5)
    assert (record.magic, record.kind, record.length, record.offset) == (b"magic!!!", 7, 4, 5)
    for values, named in (
        ((b"", 1, 2), {}),
        ((b"", 1, 2, 3, 4), {}),
        ((b"", 1, 2), {"size": 3}),
        ((b"", 1, 2, 3), {"kind": 1}),
    ):
        with pytest.raises(TypeError, match="Little has the fields magic, kind, length, offset"):
            Little(*values, **named)  # type: ignore[arg-type]


def test_a_record_is_a_value() -> None:
    record = Little(b"magic!!!", 7, 4, 5)
    other = dataclasses.replace(record, kind=8)
    assert (other.kind, record.kind) == (8, 7)
    assert other != record
    assert record != (b"magic!!!", 7, 4, 5)
    assert {record: 1}[Little(b"magic!!!", 7, 4, 5)] == 1
    assert copy.deepcopy(record) == record
    assert repr(record) == "Little(magic=b'magic!!!', kind=7, length=4, offset=5)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.kind = 8  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del record.kind
