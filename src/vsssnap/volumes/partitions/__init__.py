"""Partition tables: GPT, MBR with logical partitions, and a GPT beside an MBR."""

from vsssnap.volumes.partitions.partition import Partition as Partition
from vsssnap.volumes.partitions.table import Partitions as Partitions
from vsssnap.volumes.partitions.table import Scheme as Scheme
