"""What lies on a disk or volume, read through a `BlockReader`: partitions, file systems, shadow copies."""

from vsssnap.volumes.base import FileSystem as FileSystem
from vsssnap.volumes.detect import filesystem as filesystem
from vsssnap.volumes.partitions import Partition as Partition
from vsssnap.volumes.partitions import Partitions as Partitions
from vsssnap.volumes.partitions import Scheme as Scheme
from vsssnap.volumes.policy import DEFAULT_EXCLUSIONS as DEFAULT_EXCLUSIONS
from vsssnap.volumes.policy import Exclusion as Exclusion
from vsssnap.volumes.policy import UnusedPolicy as UnusedPolicy
from vsssnap.volumes.shadow import BlockSource as BlockSource
from vsssnap.volumes.shadow import ShadowAttributes as ShadowAttributes
from vsssnap.volumes.shadow import ShadowFlags as ShadowFlags
from vsssnap.volumes.shadow import ShadowHealth as ShadowHealth
from vsssnap.volumes.shadow import ShadowReader as ShadowReader
from vsssnap.volumes.shadow import ShadowStore as ShadowStore
from vsssnap.volumes.shadow import ShadowVolume as ShadowVolume
from vsssnap.volumes.shadow import SourceExtent as SourceExtent
from vsssnap.volumes.shadow import UnusedBlocks as UnusedBlocks
from vsssnap.volumes.viewing import view_of as view_of
