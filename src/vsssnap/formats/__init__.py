"""Image formats: the contract for drivers, and the drivers this installation has."""

from __future__ import annotations

from vsssnap.formats.base import FORMAT_API as FORMAT_API
from vsssnap.formats.base import Depth as Depth
from vsssnap.formats.base import Finding as Finding
from vsssnap.formats.base import ImageFormat as ImageFormat
from vsssnap.formats.base import ImageReader as ImageReader
from vsssnap.formats.base import ImageWriter as ImageWriter
from vsssnap.formats.base import Probe as Probe
from vsssnap.formats.base import ResolveParent as ResolveParent
from vsssnap.formats.base import SupportsWrite as SupportsWrite
from vsssnap.formats.base import WriteOrder as WriteOrder
from vsssnap.formats.base import options_of as options_of
from vsssnap.formats.pipe import PipeStorage as PipeStorage
from vsssnap.formats.registry import available as available
from vsssnap.formats.registry import by_name as by_name
from vsssnap.formats.storage import FileStorage as FileStorage
from vsssnap.formats.storage import MemoryStorage as MemoryStorage
from vsssnap.formats.storage import Storage as Storage
