"""What a volume group consists of: physical volumes, logical volumes, and their segments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vsssnap.blocks.concat import ConcatReader
from vsssnap.blocks.window import WindowReader
from vsssnap.errors import CorruptImageError, UnsupportedFeatureError, UsageError
from vsssnap.volumes.lvm.stripes import StripedReader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vsssnap.blocks.reader import BlockReader

LINEAR: Final = "linear"
STRIPED: Final = "striped"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalVolume:
    """A disk or partition of the group.

    Attributes:
        name: In the description of the group (``"pv0"``).
        id: Its UUID as LVM writes it.
        device: Where it was when the group was last changed; no more than a hint.
        start: First byte of its first extent.
        extents: How many it has.
        extent_size: Bytes of one.
        reader: What is on it; None if it was not given.
    """

    name: str
    id: str
    device: str
    start: int
    extents: int
    extent_size: int
    reader: BlockReader | None = field(repr=False, compare=False)

    @property
    def end(self) -> int:
        """First byte after its last extent."""
        return self.start + self.extents * self.extent_size


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalSegment:
    """A part of a logical volume that lies in one way.

    Attributes:
        offset: First byte in the logical volume.
        length: Bytes.
        type: ``"linear"`` and ``"striped"`` can be read; others by LVM's word (``"thin"``, ``"raid1"``).
        stripes: Where it lies: names of physical volumes, each with the first byte there; empty of
            other types.
        stripe_size: Bytes of a stripe; 0 unless striped.
        uses: Names of volumes that it consists of, of other types.
    """

    offset: int
    length: int
    type: str
    stripes: tuple[tuple[str, int], ...] = ()
    stripe_size: int = 0
    uses: frozenset[str] = frozenset()

    @property
    def end(self) -> int:
        """First byte after it in the logical volume."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalVolume:
    """One logical volume.

    Attributes:
        name: In its group.
        id: Its UUID as LVM writes it.
        size: Bytes.
        visible: Whether users are to see it; parts of others (of a RAID, of a pool) are not.
        segments: Ascending and gap-free.
        doubt: Why its segments are not what the volume shows, or "".
    """

    name: str
    id: str
    size: int
    visible: bool
    segments: tuple[LogicalSegment, ...]
    doubt: str = ""
    physical: Mapping[str, PhysicalVolume] = field(repr=False, compare=False)

    @property
    def types(self) -> tuple[str, ...]:
        """The types of its segments, each once."""
        return tuple(dict.fromkeys(segment.type for segment in self.segments))

    def open(self) -> BlockReader:
        """What is in it, as a reader; closing that leaves the physical volumes open.

        Raises:
            UnsupportedFeatureError: it is neither linear nor striped, such as a thin volume or a RAID.
            UsageError: it lies on a physical volume that the group was not given.
            CorruptImageError: a physical volume ends before the segment does.
        """
        if self.doubt:
            raise UnsupportedFeatureError(
                f"the logical volume {self.name} {self.doubt}", feature="LVM snapshot", hint=_BY_LVM
            )
        parts = [self._part(segment) for segment in self.segments]
        return parts[0] if len(parts) == 1 else ConcatReader(parts, metadata=parts[0].metadata)

    def _part(self, segment: LogicalSegment) -> BlockReader:
        if segment.type not in (LINEAR, STRIPED):
            raise UnsupportedFeatureError(
                f"the logical volume {self.name} has a segment of type {segment.type}",
                feature=f"LVM {segment.type}",
                hint=_BY_LVM,
            )
        share = segment.length // len(segment.stripes)
        parts = [self._on(name, offset, share) for name, offset in segment.stripes]
        return parts[0] if len(parts) == 1 else StripedReader(parts, segment.stripe_size)

    def _on(self, name: str, offset: int, length: int) -> BlockReader:
        place = self.physical[name]
        if place.reader is None:
            raise UsageError(
                f"the logical volume {self.name} lies also on the physical volume {place.id}, once"
                f" {place.device}, which is not here",
                hint="give VolumeGroup all its physical volumes",
            )
        if offset + length > place.reader.size:
            raise CorruptImageError(
                f"the logical volume {self.name} ends at byte {offset + length} of the physical volume"
                f" {place.id}, which has {place.reader.size}",
                structure="LVM physical volume",
                offset=offset,
                hint="the image is cut short",
            )
        return WindowReader(place.reader, offset, length)


_BY_LVM: Final = "activate it with LVM, and open its device"
