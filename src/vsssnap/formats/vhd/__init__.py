"""VHD images, read and written: docs/formats/vhd.md.

Modules, lowest first: `structs` (records), `geometry` (sizes), `locators` (where a parent lies),
`opening` (structures held against each other), `reader`, `options`, `writer` (fixed), `sparse`
(dynamic, differencing), `driver`.
"""

from __future__ import annotations

from vsssnap.formats.vhd.driver import VhdFormat as VhdFormat
from vsssnap.formats.vhd.options import VhdOptions as VhdOptions
