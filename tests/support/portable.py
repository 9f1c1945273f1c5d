"""Runs the tests that need nothing of Linux: under a real Windows, or the Windows Python of the lab.

Arguments are pytest's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent

NOT_PORTABLE: tuple[str, ...] = ()


def arguments() -> list[str]:
    """What pytest is called with."""
    ignored = [f"--ignore={TESTS / name}" for name in NOT_PORTABLE]
    return [str(TESTS), "-q", "-p", "no:cacheprovider", "-m", "not lab and not long", *ignored]


if __name__ == "__main__":
    sys.exit(pytest.main([*arguments(), *sys.argv[1:]]))
