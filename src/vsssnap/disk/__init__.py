"""Whole disks (floor 6): composed of readers, taken by snapshots of their volumes, with ids of their own."""

from vsssnap.disk.composed import DiskReader as DiskReader
from vsssnap.disk.composed import Uncovered as Uncovered
from vsssnap.disk.composed import new_disk_id as new_disk_id
from vsssnap.disk.snapshot import DiskSnapshot as DiskSnapshot
