"""QCOW2, the image format of QEMU and libvirt: docs/formats/qcow2.md."""

from __future__ import annotations

from vsssnap.formats.qcow2.bitmaps import Qcow2Bitmap as Qcow2Bitmap
from vsssnap.formats.qcow2.driver import Qcow2Format as Qcow2Format
from vsssnap.formats.qcow2.options import Qcow2Options as Qcow2Options
from vsssnap.formats.qcow2.reader import Qcow2Reader as Qcow2Reader
from vsssnap.formats.qcow2.snapshots import Qcow2Snapshot as Qcow2Snapshot
