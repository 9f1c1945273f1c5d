"""Physical volumes without what their logical volumes need not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap.blocks.concat import ConcatReader
from vsssnap.errors import CorruptImageError, DeviceReadError, SourceChangedError
from vsssnap.volumes.detect import filesystem
from vsssnap.volumes.lvm.composing import origins, pieces, why_not
from vsssnap.volumes.lvm.finding import physical_volumes
from vsssnap.volumes.signatures import others

if TYPE_CHECKING:
    from collections.abc import Callable

    from vsssnap.blocks.reader import BlockReader
    from vsssnap.volumes.lvm.group import VolumeGroup
    from vsssnap.volumes.policy import UnusedPolicy


class LogicalViews:
    """The physical volumes on a disk, each put together of views of its logical volumes.

    Attributes:
        notes: Why something was kept, a sentence each.
    """

    def __init__(
        self, disk: BlockReader, unused: UnusedPolicy, view: Callable[[str, BlockReader], BlockReader]
    ) -> None:
        """Look for them.

        Args:
            disk: The disk.
            unused: What becomes of extents that no logical volume has.
            view: Makes the view of a logical volume, from its name (``"group/volume"``) and its reader.

        Raises:
            DeviceReadError: the disk cannot be read where its table is.
        """
        self._found = physical_volumes(disk)
        self._unused = unused
        self._view = view
        self._views: dict[str, dict[str, BlockReader]] = {}
        self.notes: list[str] = []

    def of(self, number: int, volume: BlockReader) -> BlockReader | None:
        """A physical volume; None if it is none whose logical volumes can be told, or seems to hold more.

        Args:
            number: Of the partition; `WHOLE` for the disk.
            volume: What is in it.
        """
        found = self._found.get(number)
        if found is None or found.group is None:
            return None
        # A label stays where a file system was made later: nothing that it says would be free then.
        try:
            if filesystem(volume) is not None or list(others(volume)) != ["LVM"]:
                return None
        except DeviceReadError:  # what it holds besides cannot be told
            return None
        group = found.group
        place = next(each for each in group.physical.values() if each.id == found.id)
        try:
            if group.id not in self._views:
                self._views[group.id] = dict(self._of_group(group))
            return ConcatReader(pieces(group, place, volume, self._views[group.id], self._unused))
        except (CorruptImageError, SourceChangedError):  # it is cut short, or contradicts itself
            return None

    def _of_group(self, group: VolumeGroup) -> list[tuple[str, BlockReader]]:
        """Views of the volumes whose extents are what they show."""
        here = frozenset(name for name, place in group.physical.items() if place.reader is not None)
        kept = origins(group)
        self.notes += [
            f"logical volume {group.name}/{each.name}: every block is kept, as snapshots of LVM lie over it"
            for each in group.volumes.values()
            if each.name in kept and not each.doubt
        ]
        return [
            (each.name, self._view(f"{group.name}/{each.name}", each.open()))
            for each in group.volumes.values()
            if any(segment.stripes for segment in each.segments)
            and each.name not in kept
            and not why_not(group, each, here)
        ]
