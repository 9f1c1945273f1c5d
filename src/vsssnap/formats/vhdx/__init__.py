"""VHDX images: Virtual Hard Disk v2 ([MS-VHDX]), which Windows and Hyper-V attach."""

from __future__ import annotations

from vsssnap.formats.vhdx.driver import VhdxFormat as VhdxFormat
from vsssnap.formats.vhdx.options import VhdxOptions as VhdxOptions
from vsssnap.formats.vhdx.reader import VhdxReader as VhdxReader
