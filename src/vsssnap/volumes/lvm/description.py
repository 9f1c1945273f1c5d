"""The description of a volume group, checked: nothing that it says is used before it is in bounds.

Source: "LVM format specification" of the libvslvm project, section "Metadata"; lvmraid(7), lvmthin(7)
and lvmcache(7) on the types of segments.  Sizes count sectors of 512 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from vsssnap._units import MAX_SIZE
from vsssnap.errors import CorruptImageError, UnsupportedFeatureError
from vsssnap.volumes.lvm.layout import LINEAR, STRIPED, LogicalSegment, LogicalVolume, PhysicalVolume
from vsssnap.volumes.lvm.structs import SECTOR

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vsssnap.blocks.reader import BlockReader
    from vsssnap.volumes.lvm.text import Section, Value

_MOST: Final = MAX_SIZE // SECTOR
_FORMAT: Final = "lvm2"

# Words in segments that a volume may be called by, too.
_NO_NAMES: Final = frozenset({"type", "tags", "cache_mode", "policy", "discards"})


@dataclass(frozen=True)
class Described:
    """What one copy of the description says.

    Attributes:
        name: Of the group.
        id: Its UUID.
        seqno: Rises with every change.
        extent_size: Bytes.
        physical_ids: The UUIDs of its physical volumes.
        missing: Those of them that were away when it was last changed, and have not been taken back since.
        shared: Whether several hosts use it at once.
        system_id: Which host owns it, or "" if any may use it.
        section: The rest.
    """

    name: str
    id: str
    seqno: int
    extent_size: int
    physical_ids: frozenset[str]
    missing: frozenset[str]
    shared: bool
    system_id: str
    section: Section

    def laid_out(
        self, readers: Mapping[str, BlockReader]
    ) -> tuple[dict[str, PhysicalVolume], dict[str, LogicalVolume]]:
        """Its physical and logical volumes by name.

        Args:
            readers: The physical volumes that are here, by UUID.

        Raises:
            CorruptImageError: it contradicts itself.
        """
        physical = {}
        for name, section in _sections(self.section, "physical_volumes"):
            where = f"the physical volume {name}"
            place = PhysicalVolume(
                name=name,
                id=_text(section, "id", where),
                device=_text(section, "device", where, ""),
                start=_number(section, "pe_start", where) * SECTOR,
                extents=_number(section, "pe_count", where),
                extent_size=self.extent_size,
                reader=readers.get(_text(section, "id", where)),
            )
            if place.end > MAX_SIZE:
                raise _wrong(f"{where} of {place.extents} extents is larger than any disk")
            physical[name] = place
        sections = dict(_sections(self.section, "logical_volumes"))
        shared = MappingProxyType(physical)
        doubts = _doubts(sections)
        volumes = {}
        for name, section in sections.items():
            segments = tuple(_segments(name, section, shared, self.extent_size))
            volumes[name] = LogicalVolume(
                name=name,
                id=_text(section, "id", f"the logical volume {name}"),
                size=segments[-1].end,
                visible="VISIBLE" in _texts(section, "status"),
                segments=segments,
                doubt=doubts.get(name, ""),
                physical=shared,
            )
        return physical, volumes


def described(text: Section) -> Described:
    """The group that a parsed text is about.

    Raises:
        CorruptImageError: it is about none, or about several.
        UnsupportedFeatureError: it is not of LVM2.
    """
    groups = [(name, value) for name, value in text.items() if isinstance(value, dict)]
    if len(groups) != 1:
        raise _wrong(f"the description is about {len(groups)} groups")
    name, section = groups[0]
    where = f"the group {name}"
    kind = _text(section, "format", where, _FORMAT)
    if kind != _FORMAT:
        raise UnsupportedFeatureError(
            f"{where} is of format {kind[:40]!r}",
            feature="LVM metadata",
            hint="vgconvert(8) of an older LVM makes it one of format lvm2",
        )
    places = _sections(section, "physical_volumes")
    ids = [_text(each, "id", f"the physical volume {pv}") for pv, each in places]
    if len(set(ids)) != len(ids):
        raise _wrong(f"{where} has two physical volumes of one id")
    return Described(
        name=name,
        id=_text(section, "id", where),
        seqno=_number(section, "seqno", where),
        extent_size=_number(section, "extent_size", where, least=1) * SECTOR,
        physical_ids=frozenset(ids),
        missing=frozenset(
            identifier
            for identifier, (_, each) in zip(ids, places, strict=True)
            if "MISSING" in _texts(each, "flags")
        ),
        # By lvmlockd(8), and by clvmd before it.
        shared=section.get("lock_type", "none") not in ("none", "")
        or "CLUSTERED" in _texts(section, "status"),
        system_id=_text(section, "system_id", where, ""),
        section=section,
    )


def _doubts(sections: Mapping[str, Section]) -> dict[str, str]:
    """Logical volumes that snapshots make other than their segments, and why."""
    doubts: dict[str, str] = {}
    for section in sections.values():
        for _, segment in _numbered(section):
            if segment.get("type") != "snapshot":
                continue
            origin = str(segment.get("origin", ""))[:128]
            for key in ("cow_store", "merging_store"):
                store = segment.get(key)
                if isinstance(store, str):
                    doubts[store] = (
                        f"is a snapshot of {origin}, and its segments hold only what was overwritten"
                    )
                    if key == "merging_store":
                        doubts[origin] = f"is being merged with its snapshot {store[:128]}"
    return doubts


def _numbered(section: Section) -> list[tuple[int, Section]]:
    """The segments in a logical volume, by their number."""
    found = [
        (int(name[7:]), value)
        for name, value in section.items()
        if isinstance(value, dict) and name.startswith("segment") and name[7:].isdecimal() and len(name) < 20
    ]
    return sorted(found, key=lambda each: each[0])


def _segments(
    name: str, section: Section, physical: Mapping[str, PhysicalVolume], extent_size: int
) -> Iterator[LogicalSegment]:
    where = f"the logical volume {name}"
    found = _numbered(section)
    count = _number(section, "segment_count", where, least=1)
    if [number for number, _ in found] != list(range(1, len(found) + 1)) or len(found) != count:
        raise _wrong(f"{where} has {len(found)} segments, not {count}")
    at = 0
    for number, each in found:
        part = f"segment {number} of {where}"
        start, extents = (_number(each, key, part) for key in ("start_extent", "extent_count"))
        if start * extent_size != at or not extents or (start + extents) * extent_size > MAX_SIZE:
            raise _wrong(f"{part} of {extents} extents begins at extent {start}, not at {at // extent_size}")
        length = extents * extent_size
        yield _segment(each, part, at, length, physical)
        at += length


def _segment(
    section: Section, where: str, offset: int, length: int, physical: Mapping[str, PhysicalVolume]
) -> LogicalSegment:
    kind = _text(section, "type", where)
    if kind != STRIPED:
        return LogicalSegment(offset=offset, length=length, type=kind[:64], uses=_names(section))
    count = _number(section, "stripe_count", where, least=1)
    places = section.get("stripes")
    if not isinstance(places, list) or len(places) != 2 * count:
        raise _wrong(f"{where} does not say where its {count} stripes are")
    if length % count:
        raise _wrong(f"{where} has {count} stripes that are not alike")
    share = length // count
    stripes = []
    for name, extent in zip(places[::2], places[1::2], strict=True):
        if not isinstance(name, str) or not isinstance(extent, int):
            raise _wrong(f"{where} does not say where its {count} stripes are")
        place = physical.get(name)
        if place is None:  # on another logical volume, while pvmove(8) runs
            return LogicalSegment(
                offset=offset, length=length, type=f"{kind} over {name[:64]}", uses=_names(section)
            )
        start = place.start + extent * place.extent_size
        if extent < 0 or start + share > place.end:
            raise _wrong(f"{where} is outside of the physical volume {name}")
        stripes.append((name, start))
    if count == 1:
        return LogicalSegment(offset=offset, length=length, type=LINEAR, stripes=tuple(stripes))
    stripe_size = _number(section, "stripe_size", where, least=1) * SECTOR
    if share % stripe_size:
        raise _wrong(f"{where} has stripes of {stripe_size} bytes, which are no part of {share}")
    return LogicalSegment(
        offset=offset, length=length, type=STRIPED, stripes=tuple(stripes), stripe_size=stripe_size
    )


def _sections(section: Section, key: str) -> list[tuple[str, Section]]:
    """The sections in one; none if it is not there."""
    inner = section.get(key, {})
    if not isinstance(inner, dict) or not all(isinstance(each, dict) for each in inner.values()):
        raise _wrong(f"{key} is no list of sections")
    return [(name, each) for name, each in inner.items() if isinstance(each, dict)]


def _number(section: Section, key: str, where: str, *, least: int = 0) -> int:
    value: Value | None = section.get(key)
    if not isinstance(value, int) or not least <= value <= _MOST:
        raise _wrong(f"{where} has the {key} {str(value)[:40]}")
    return value


def _text(section: Section, key: str, where: str, default: str | None = None) -> str:
    value: Value | None = section.get(key, default)
    if not isinstance(value, str):
        raise _wrong(f"{where} has the {key} {str(value)[:40]}")
    return value


def _names(section: Section) -> frozenset[str]:
    """All texts in a segment that may be names; those of what it consists of are among them."""
    values = [
        each
        for key, value in section.items()
        if key not in _NO_NAMES
        for each in (value if isinstance(value, list) else [value])
    ]
    return frozenset(value for value in values if isinstance(value, str))


def _texts(section: Section, key: str) -> list[str]:
    value = section.get(key, [])
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _wrong(what: str) -> CorruptImageError:
    return CorruptImageError(
        what, structure="LVM metadata", hint="vgcfgrestore(8) writes an older description"
    )
