"""The pytest plug-in: the fixture `fake_vss`.

It is found by itself where vsssnap is installed; else write ``pytest_plugins =
["vsssnap.testing.plugin"]``.  Only this module of the library needs pytest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vsssnap.testing.fake_vss import FakeVss


@pytest.fixture
def fake_vss() -> Iterator[FakeVss]:
    """A machine with VSS that this process calls instead of Windows.

    When the test ends, nothing may be left of what it gave out, and nothing forbidden may have been
    done; see `vsssnap.testing.fake_vss.FakeVss.check`.
    """
    from vsssnap.testing.fake_vss import FakeVss  # what does not use it does not pay for it

    machine = FakeVss()
    with machine.installed():
        yield machine
    machine.check()
    machine.close()
