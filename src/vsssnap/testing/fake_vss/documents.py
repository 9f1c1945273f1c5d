"""The backup components document of a fake requester."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from vsssnap._win32.constants import ComponentType, FileRestoreStatus, RestoreTarget, RollForwardType

if TYPE_CHECKING:
    from collections.abc import Iterable

_ROOT, _WRITER, _COMPONENT = "BACKUP_COMPONENTS", "WRITER_COMPONENTS", "COMPONENT"
_SHADOW, _PARTIAL = "SNAPSHOT_DESCRIPTION", "PARTIAL_FILE"
_SAID = {True: "yes", False: "no"}
_TEXTS = {
    "backupOptions": "backup_options",
    "previousBackupStamp": "previous_stamp",
    "backupStamp": "stamp",
    "metadata": "backup_metadata",
}
"""What of a component is kept for its restore."""
_PARTIAL_FACTS = ("path", "filename", "ranges", "metadata")


@dataclass(eq=False)
class SavedComponent:
    """A component that was added to the document, and what was told of it since."""

    instance_id: UUID
    writer_id: UUID
    kind: ComponentType
    logical_path: str
    name: str
    succeeded: bool | None = None
    selected: bool = False
    more_restores: bool = False
    backup_options: str = ""
    restore_options: str = ""
    previous_stamp: str = ""
    restore_name: str = ""
    authoritative: bool = False
    roll_forward: tuple[RollForwardType, str] = (RollForwardType.VSS_RF_UNDEFINED, "")
    status: FileRestoreStatus = FileRestoreStatus.VSS_RS_UNDEFINED
    target: RestoreTarget = RestoreTarget.VSS_RT_ORIGINAL
    before: str = ""
    after: str = ""
    stamp: str = ""
    backup_metadata: str = ""
    restore_metadata: str = ""
    before_backup: str = ""
    after_snapshot: str = ""
    failure: tuple[int, int, str] = (0, 0, "")
    partial_files: list[tuple[str, ...]] = field(default_factory=list)
    ranges_files: dict[int, str] = field(default_factory=dict)
    directed: list[tuple[str, ...]] = field(default_factory=list)
    differenced: list[tuple[str, str, bool, int]] = field(default_factory=list)
    subcomponents: list[tuple[str, str, bool]] = field(default_factory=list)
    new_targets: list[tuple[str, str, bool, str]] = field(default_factory=list)
    mappings: list[tuple[str, str, bool, str]] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Logical path and name, by which components are compared."""
        return "\\".join(filter(None, (self.logical_path, self.name))).lower()

    @property
    def takes_part(self) -> bool:
        """Whether it is selected for restore, or something below it."""
        return self.selected or bool(self.subcomponents)


@dataclass(frozen=True)
class SavedShadow:
    """A shadow copy that the document speaks of."""

    id: UUID
    set_id: UUID
    provider_id: UUID
    transportable: bool


def write(
    components: list[SavedComponent],
    *,
    bootable: bool,
    select: bool,
    set_id: UUID | None,
    shadows: Iterable[SavedShadow] = (),
) -> str:
    """The document as XML."""
    root = ET.Element(
        _ROOT,
        {
            "snapshotSetId": str(set_id or ""),
            "bootableSystemStateBackup": "yes" if bootable else "no",
            "selectComponents": "yes" if select else "no",
        },
    )
    for shadow in shadows:
        facts = {"snapshotId": str(shadow.id), "snapshotSetId": str(shadow.set_id)}
        facts |= {"providerId": str(shadow.provider_id), "transportable": _SAID[shadow.transportable]}
        ET.SubElement(root, _SHADOW, facts)
    writers: dict[UUID, ET.Element] = {}
    for one in components:
        if one.instance_id not in writers:
            facts = {"instanceId": str(one.instance_id), "writerId": str(one.writer_id)}
            writers[one.instance_id] = ET.SubElement(root, _WRITER, facts)
        facts = {"componentName": one.name, "logicalPath": one.logical_path, "componentType": one.kind.name}
        if one.succeeded is not None:
            facts["backupSucceeded"] = _SAID[one.succeeded]
        facts |= {key: text for key, field_name in _TEXTS.items() if (text := getattr(one, field_name))}
        made = ET.SubElement(writers[one.instance_id], _COMPONENT, facts)
        for known in one.partial_files:
            ET.SubElement(made, _PARTIAL, dict(zip(_PARTIAL_FACTS, known, strict=True)))
    return ET.tostring(root, "unicode")


def read(text: str) -> tuple[list[SavedComponent], list[SavedShadow]] | None:
    """What a document holds, or None if it is none."""
    try:
        root = ET.fromstring(text)  # noqa: S314 - a document of a test's own
        if root.tag != _ROOT:
            return None
        components = [
            _component(writer, one) for writer in root.iter(_WRITER) for one in writer.iter(_COMPONENT)
        ]
        shadows = [
            SavedShadow(
                UUID(one.attrib["snapshotId"]),
                UUID(one.attrib["snapshotSetId"]),
                UUID(one.attrib["providerId"]),
                one.attrib["transportable"] == "yes",
            )
            for one in root.iter(_SHADOW)
        ]
    except (ET.ParseError, KeyError, ValueError):
        return None
    return components, shadows


def _component(writer: ET.Element, one: ET.Element) -> SavedComponent:
    made = SavedComponent(
        UUID(writer.attrib["instanceId"]),
        UUID(writer.attrib["writerId"]),
        ComponentType[one.attrib["componentType"]],
        one.attrib["logicalPath"],
        one.attrib["componentName"],
        succeeded=one.attrib.get("backupSucceeded") == "yes",
        partial_files=[tuple(known.attrib[key] for key in _PARTIAL_FACTS) for known in one.iter(_PARTIAL)],
    )
    for key, field_name in _TEXTS.items():
        setattr(made, field_name, one.attrib.get(key, ""))
    return made
