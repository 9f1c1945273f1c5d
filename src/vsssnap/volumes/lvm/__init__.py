"""LVM2: the logical volumes of a volume group, read from its physical volumes without LVM."""

from vsssnap.volumes.lvm.group import VolumeGroup as VolumeGroup
from vsssnap.volumes.lvm.layout import LogicalSegment as LogicalSegment
from vsssnap.volumes.lvm.layout import LogicalVolume as LogicalVolume
from vsssnap.volumes.lvm.layout import PhysicalVolume as PhysicalVolume
