"""For your own tests: contracts to hold a driver to, and things that fail on purpose.

Nothing here needs pytest; `vsssnap.testing.strategies`, which is imported by its own name,
needs hypothesis.
"""

from __future__ import annotations

from vsssnap.testing._provider_case import CheckedVolume as CheckedVolume
from vsssnap.testing.faults import Faults as Faults
from vsssnap.testing.faulty import FaultyProvider as FaultyProvider
from vsssnap.testing.faulty import FaultyReader as FaultyReader
from vsssnap.testing.faulty import FaultyStorage as FaultyStorage
from vsssnap.testing.faulty import faulty_provider as faulty_provider
from vsssnap.testing.formats import check_format as check_format
from vsssnap.testing.live import LiveDisk as LiveDisk
from vsssnap.testing.live import naive_copy as naive_copy
from vsssnap.testing.live import torn as torn
from vsssnap.testing.memory import MemoryProvider as MemoryProvider
from vsssnap.testing.memory import MemoryReader as MemoryReader
from vsssnap.testing.memory import MemoryVolume as MemoryVolume
from vsssnap.testing.memory import installed as installed
from vsssnap.testing.powercut import PowerCut as PowerCut
from vsssnap.testing.providers import check_provider as check_provider
from vsssnap.testing.readers import check_reader as check_reader
from vsssnap.testing.seeded import SeededDisk as SeededDisk
