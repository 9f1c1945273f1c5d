from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsssnap._win32 import com, dll
from vsssnap._win32._ffi import ffi
from vsssnap.errors import SnapshotError, SnapshotPermissionError
from vsssnap.testing.fake_vss import FakeVss


@given(st.uuids())
def test_ids_survive(value: UUID) -> None:
    assert com.uuid_of(com.guid(value)) == value
    assert com.uuid_of(com.guid(value)[0]) == value


def test_an_id_has_the_byte_order_of_windows() -> None:
    made = com.guid(UUID("665c1d5f-c218-414d-a05d-7fef5f9d5c86"))
    assert (made.Data1, made.Data2, made.Data3) == (0x665C1D5F, 0xC218, 0x414D)
    assert bytes(made.Data4) == bytes.fromhex("a05d7fef5f9d5c86")


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_strings_survive(text: str) -> None:
    assert com.text_at(com.wide(text)) == text


def test_a_null_string_is_empty() -> None:
    assert com.text_at(ffi.NULL) == ""


def test_a_bstr_is_counted_not_zero_ended(fake_vss: FakeVss) -> None:
    slot = ffi.new("BSTR *")
    slot[0] = fake_vss.bstr("one\0two")
    assert com.take_bstr(fake_vss, slot) == "one\0two"
    assert not slot[0]
    assert com.take_bstr(fake_vss, slot) == ""


def test_check_gives_success_back_and_raises_failure() -> None:
    assert com.check(1, "call") == 1
    assert com.check(0x00042309, "call") == 0x00042309
    with pytest.raises(SnapshotPermissionError) as caught:
        com.check(-2147024891, "call", "C:\\")
    assert caught.value.code == 0x80070005
    with pytest.raises(SnapshotError):
        com.check(0x80042301, "call")


def test_a_lent_system_is_the_current_one_for_a_while() -> None:
    before, fake, other = dll.current(), FakeVss(), FakeVss()
    with dll.lent(fake):
        assert dll.current() is fake
        with dll.lent(other):
            assert dll.current() is other
    assert dll.current() is before


def test_ids_are_compared_by_value() -> None:
    assert com.uuid_of(com.guid(uuid4())) != com.uuid_of(com.guid(uuid4()))
