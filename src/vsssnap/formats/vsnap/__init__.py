"""Our own image format; the specification is docs/formats/vsnap.md.

Modules, lowest first: `structs` (records), `frames`, `codec`, `states`, `merkle`, `layout`
(header, footer), `index` (pages), `payload` (data frames), `state_frames`, `metadata_frames`,
`chain` (files), `tree` and `plain` (reading), `scan` and `rebuild` (recovering), `tree_builder`,
`marks`, `encoder` and `writer` (writing), `verify`, `reader`, `opening`, `driver`.
"""

from __future__ import annotations

from vsssnap.formats.vsnap.driver import VsnapFormat as VsnapFormat
from vsssnap.formats.vsnap.options import VsnapOptions as VsnapOptions
