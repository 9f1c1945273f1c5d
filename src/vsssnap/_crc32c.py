"""CRC-32C (Castagnoli), as VHDX uses it for its metadata.

Source: RFC 3720, appendix B.4 (test vectors) and section 12.1 (polynomial 0x1EDC6F41,
reflected 0x82F63B78).  Payload is never covered by it, at most a log entry of some MiB
is, so a table of eight slices in plain Python is enough and saves a dependency.
"""

from __future__ import annotations

from functools import lru_cache

_REFLECTED = 0x82F63B78


def _tables() -> list[list[int]]:
    first = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_REFLECTED if crc & 1 else 0)
        first.append(crc)
    tables = [first]
    for _ in range(7):
        last = tables[-1]
        tables.append([(crc >> 8) ^ first[crc & 0xFF] for crc in last])
    return tables


_T0, _T1, _T2, _T3, _T4, _T5, _T6, _T7 = _tables()


def crc32c(data: bytes | bytearray | memoryview, value: int = 0) -> int:
    """The CRC-32C of ``data``.

    Args:
        data: Any number of bytes, as single bytes.
        value: The checksum of what came before, to go on from.
    """
    crc = value ^ 0xFFFF_FFFF
    view = memoryview(data)
    body = len(view) & ~7
    for word in view[:body].cast("Q") if _LITTLE else ():
        low = (word & 0xFFFF_FFFF) ^ crc
        high = word >> 32
        crc = (
            _T7[low & 0xFF]
            ^ _T6[(low >> 8) & 0xFF]
            ^ _T5[(low >> 16) & 0xFF]
            ^ _T4[low >> 24]
            ^ _T3[high & 0xFF]
            ^ _T2[(high >> 8) & 0xFF]
            ^ _T1[(high >> 16) & 0xFF]
            ^ _T0[high >> 24]
        )
    for byte in view[body if _LITTLE else 0 :]:
        crc = (crc >> 8) ^ _T0[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFF_FFFF


_LITTLE = memoryview(b"\1\0\0\0\0\0\0\0").cast("Q")[0] == 1


def append_zeros(value: int, count: int) -> int:
    """The checksum of what ``value`` is of, with ``count`` zero bytes behind it; takes log(count) steps.

    The tables of a VHDX are mostly padding: of a region table of 64 KiB some hundred bytes are used.
    """
    return _product(value ^ 0xFFFF_FFFF, _zeros(count)) ^ 0xFFFF_FFFF


@lru_cache(maxsize=64)  # the tables of all images end alike
def _zeros(count: int) -> int:
    # A zero byte multiplies the register by x^8 modulo the polynomial (RFC 3720, B.4: bits reflected).
    factor, power = 1 << 31, 1 << 23  # 1 and x^8
    while count:
        if count & 1:
            factor = _product(factor, power)
        power = _product(power, power)
        count >>= 1
    return factor


def _product(one: int, other: int) -> int:
    """Of two polynomials modulo that of the checksum; the highest bit is the coefficient of x^0."""
    result = 0
    while one:
        if one & 1 << 31:
            result ^= other
        one = one << 1 & 0xFFFF_FFFF
        other = other >> 1 ^ (_REFLECTED if other & 1 else 0)
    return result
