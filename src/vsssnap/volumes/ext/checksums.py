"""Checksums of ext4's metadata.

Source: "ext4 Data Structures and Algorithms", section 2.8: with METADATA_CSUM a CRC-32C without its
last inversion, seeded by the volume's UUID; with GDT_CSUM alone a CRC-16 of the group descriptors.
"""

from __future__ import annotations

from vsssnap._crc32c import crc32c

_ONES = 0xFFFF_FFFF


def chained(seed: int, data: bytes) -> int:
    """CRC-32C as ext4 goes on with it from ``seed``: neither end is inverted."""
    return crc32c(data, seed ^ _ONES) ^ _ONES


def _table() -> tuple[int, ...]:
    values = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0xA001 if value & 1 else 0)
        values.append(value)
    return tuple(values)


_CRC16 = _table()


def crc16(value: int, data: bytes) -> int:
    """CRC-16 of the reflected polynomial 0xA001, to go on from ``value``."""
    for byte in data:
        value = (value >> 8) ^ _CRC16[(value ^ byte) & 0xFF]
    return value
