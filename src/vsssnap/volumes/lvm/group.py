"""A volume group, read from its physical volumes."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from vsssnap.blocks.reader import as_reader
from vsssnap.errors import CorruptImageError, DeviceReadError, UnknownFormatError, UsageError
from vsssnap.volumes.lvm.description import Described, described
from vsssnap.volumes.lvm.label import Label, read_label, read_texts
from vsssnap.volumes.lvm.text import parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vsssnap.blocks.reader import BlockReader, SupportsPread
    from vsssnap.volumes.lvm.layout import LogicalVolume, PhysicalVolume

    _Wrong = CorruptImageError | DeviceReadError


class VolumeGroup:
    """The logical volumes of an LVM2 volume group, without LVM.  Thread-safe.

    ::

        with open_image("disk.vhdx") as disk:
            group = VolumeGroup(Partitions(disk)[2].open())
            root = group["root"].open()

    Iteration gives the logical volumes that users are to see, in the order of the group; ``[]`` and
    ``in`` know all of them.  The description is read once, by the constructor.  Of several copies
    the newest good one counts.

    Attributes:
        name: Of the group.
        id: Its UUID as LVM writes it.
        seqno: Rises with every change of the group.
        extent_size: Bytes of an extent, the unit of all sizes.
        shared: Whether several hosts use it at once (lvmlockd, clvmd): what is not active on one of them
            may be so on another.
        system_id: The name that LVM knows the host by which owns the group (lvmsystemid(7)); "" if any
            host may use it.
        volumes: All logical volumes by name, hidden ones too.
        physical: All physical volumes by their name in the description, those that are not here too.
        notes: What is wrong and can be borne, a sentence each.
    """

    name: str
    id: str
    seqno: int
    extent_size: int
    shared: bool
    system_id: str
    volumes: Mapping[str, LogicalVolume]
    physical: Mapping[str, PhysicalVolume]
    notes: tuple[str, ...]

    def __init__(self, volume: SupportsPread, /, *more: SupportsPread) -> None:
        """Read the description.

        Args:
            volume: A physical volume: a partition or a whole disk.  It stays the caller's, and logical
                volumes read through it.
            more: The others of the group, in any order; a logical volume needs those that it lies on.

        Raises:
            UnknownFormatError: one is no physical volume, or none of them says what group it is in.
            CorruptImageError: a label is damaged, or the description is and no copy of it is good.
            UnsupportedFeatureError: it is of another version of LVM.
            UsageError: they are of different groups, or one was given twice.
            DeviceReadError: a label cannot be read, or no copy of the description.
        """
        notes: list[str] = []
        damaged: list[_Wrong] = []
        readers: dict[str, BlockReader] = {}
        found: list[Described] = []
        for each in (volume, *more):
            reader = as_reader(each)
            label = read_label(reader)
            if label.id in readers:
                raise UsageError(
                    f"two of the volumes are the physical volume {label.id}", hint="give each of them once"
                )
            readers[label.id] = reader
            wrong: list[_Wrong] = []
            found += _descriptions(reader, label, wrong)
            damaged += wrong
            notes += [f"the physical volume {label.id}: {each.message}" for each in wrong]
        if not found and damaged:
            raise damaged[0]
        if not found:
            raise UnknownFormatError(
                f"the physical volume {next(iter(readers))} does not say what group it is in",
                hint="it is in none, or others of its group have the description: give those too",
            )
        newest = max(found, key=lambda one: one.seqno)
        if any(one.id != newest.id for one in found):
            names = " and ".join(dict.fromkeys(f"{one.name} ({one.id})" for one in found))
            raise UsageError(
                f"the physical volumes are of different groups, {names}", hint="make a VolumeGroup of each"
            )
        if any(one.seqno != newest.seqno for one in found):
            notes.append(f"some of the group's descriptions are older than its change {newest.seqno}")
        strangers = readers.keys() - newest.physical_ids
        if strangers:
            raise UsageError(
                f"the physical volume {min(strangers)} is none of the group {newest.name}",
                hint="leave it out; where its label says otherwise, vgck --updatemetadata clears it",
            )
        self.name, self.id, self.seqno = newest.name, newest.id, newest.seqno
        self.extent_size, self.shared = newest.extent_size, newest.shared
        self.system_id = newest.system_id
        notes += [
            f"the physical volume {each} was missing when its group was changed: what is on it may be old"
            for each in sorted(newest.missing & readers.keys())
        ]
        self.notes = tuple(notes)
        physical, volumes = newest.laid_out(readers)
        self.physical, self.volumes = MappingProxyType(physical), MappingProxyType(volumes)

    def __getitem__(self, name: str) -> LogicalVolume:
        """The logical volume of a name.

        Raises:
            UsageError: there is none.
        """
        found = self.volumes.get(name)
        if found is None:
            known = ", ".join(each.name for each in self) or "none at all"
            raise UsageError(f"the group {self.name} has no logical volume {name!r}", hint=f"it has {known}")
        return found

    def __iter__(self) -> Iterator[LogicalVolume]:
        return (each for each in self.volumes.values() if each.visible)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self.volumes

    def __repr__(self) -> str:
        return f"<VolumeGroup {self.name}: {', '.join(each.name for each in self)}>"


def _descriptions(reader: BlockReader, label: Label, wrong: list[_Wrong]) -> list[Described]:
    """The good copies on a physical volume; ``wrong`` gets what is the matter with others."""
    found: list[Described] = []
    for text in dict.fromkeys(read_texts(reader, label, wrong)):
        try:
            found.append(described(parse(text)))
        except CorruptImageError as exc:
            wrong.append(exc)
    return found
