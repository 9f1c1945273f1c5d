"""Sizes and rates as people write them, and checks of sizes that callers pass in."""

from __future__ import annotations

import operator
import re
from typing import SupportsIndex

from vsssnap.errors import UsageError

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

MAX_SIZE = (1 << 63) - 1
"""Largest byte address: what off_t and LARGE_INTEGER hold."""

_UNITS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB, "P": 1 << 50}
# ASCII: without it "\d" takes digits of every script and, case ignored, "K" the Kelvin sign.
# At most 40 digits: `int` refuses some thousands with an error of its own.
_SIZE = re.compile(r"\s*(\d{1,40}(?:\.\d{1,40})?)\s*(?:([KMGTP])(?:i?B)?|B)?\s*", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """Read a size such as ``"64K"``, ``"1.5 GiB"`` or ``"4096"``, in bytes.

    K, M, G, T and P are powers of 1024, with or without "iB" or "B".

    Raises:
        UsageError: ``text`` is no size, no whole number of bytes, or above 2**63 - 1.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is no size", hint='write a number and a unit, such as "64K" or "1.5GiB"')
    number, unit = match.group(1), _UNITS[(match.group(2) or "").upper()]
    whole, _, fraction = number.partition(".")
    size, rest = divmod(int(whole + fraction) * unit, int("1" + "0" * len(fraction)))
    if rest or size > MAX_SIZE:
        problem = "above 2**63 - 1 bytes" if size > MAX_SIZE else "no whole number of bytes"
        raise UsageError(f"{text!r} is {problem}", hint="name a size that a device can have")
    return size


def format_size(size: float) -> str:
    """Write a size for people: about three significant digits and a binary unit (``"1.50 GiB"``)."""
    if abs(size) < KIB:
        return f"{size:.0f} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        value /= KIB
        # 999.5 and more would round to four digits.
        if abs(value) < 999.5 or unit == "PiB":
            break
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f} {unit}"


def whole(value: SupportsIndex, name: str, *, least: int = 0, most: int = MAX_SIZE) -> int:
    """Check that an argument is a whole number within bounds.

    Raises:
        UsageError: it is not; the message begins with ``name``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise UsageError(f"{name} is {value!r}, no whole number") from None
    if not least <= number <= most:
        # Some thousands of digits are more than `str` writes.
        shown = str(number) if number.bit_length() <= 256 else f"a number of {number.bit_length()} bits"
        raise UsageError(f"{name} is {shown}, outside {least}..{most}")
    return number


def round_up(value: int, unit: int) -> int:
    """The lowest multiple of ``unit`` that is not below ``value``."""
    return -(-value // unit) * unit


def is_power_of_two(value: int) -> bool:
    """Whether ``value`` is 1, 2, 4, 8, ..."""
    return value > 0 and value & (value - 1) == 0
