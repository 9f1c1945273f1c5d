"""VMDK images: docs/formats/vmdk.md.

Modules, lowest first: `structs` (records), `descriptor` (text), `source` (files), `scan` (a stream
by its markers), `tables` (where grains lie), `backing` (extents), `opening`, `reader`, `options`,
`stream` and `sparse` (writing), `driver`.
"""

from __future__ import annotations

from vsssnap.formats.vmdk.driver import VmdkFormat as VmdkFormat
from vsssnap.formats.vmdk.options import VmdkOptions as VmdkOptions
