"""CRC-32C against its published values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsssnap._crc32c import append_zeros, crc32c


# RFC 3720, appendix B.4.
@pytest.mark.parametrize(
    ("data", "value"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_crc32c_gives_the_published_values(data: bytes, value: int) -> None:
    assert crc32c(data) == value
    assert crc32c(memoryview(bytearray(data))) == value


@given(st.binary(max_size=100), st.integers(0, 100))
def test_crc32c_goes_on_from_what_came_before(data: bytes, cut: int) -> None:
    assert crc32c(data[cut:], crc32c(data[:cut])) == crc32c(data)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 255, 256, 4016, 65536 - 80])
def test_zeros_are_appended_without_passing_over_them(count: int) -> None:
    for data in (b"", b"\0", b"123456789", bytes(range(256))):
        assert append_zeros(crc32c(data), count) == crc32c(data + bytes(count))


def test_appended_zeros_agree_with_the_standard() -> None:
    assert append_zeros(crc32c(b""), 32) == 0x8A9136AA  # RFC 3720, B.4: 32 bytes of zeros
