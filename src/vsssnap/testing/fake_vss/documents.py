"""The backup components document of a fake requester."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from uuid import UUID

from vsssnap._win32.constants import ComponentType, FileRestoreStatus, RestoreTarget, RollForwardType

_ROOT, _WRITER, _COMPONENT = "BACKUP_COMPONENTS", "WRITER_COMPONENTS", "COMPONENT"


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
    target: RestoreTarget = RestoreTarget.VSS_RT_UNDEFINED
    before: str = ""
    after: str = ""
    subcomponents: list[tuple[str, str, bool]] = field(default_factory=list)
    new_targets: list[tuple[str, str, bool, str]] = field(default_factory=list)
    mappings: list[tuple[str, str, bool, str]] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Logical path and name, by which components are compared."""
        return "\\".join(filter(None, (self.logical_path, self.name))).lower()


def write(components: list[SavedComponent], *, bootable: bool, select: bool, set_id: UUID | None) -> str:
    """The document as XML."""
    root = ET.Element(
        _ROOT,
        {
            "snapshotSetId": str(set_id or ""),
            "bootableSystemStateBackup": "yes" if bootable else "no",
            "selectComponents": "yes" if select else "no",
        },
    )
    writers: dict[UUID, ET.Element] = {}
    for one in components:
        if one.instance_id not in writers:
            facts = {"instanceId": str(one.instance_id), "writerId": str(one.writer_id)}
            writers[one.instance_id] = ET.SubElement(root, _WRITER, facts)
        facts = {"componentName": one.name, "logicalPath": one.logical_path, "componentType": one.kind.name}
        if one.succeeded is not None:
            facts["backupSucceeded"] = "yes" if one.succeeded else "no"
        ET.SubElement(writers[one.instance_id], _COMPONENT, facts)
    return ET.tostring(root, "unicode")


def read(text: str) -> list[SavedComponent] | None:
    """What a document holds, or None if it is none."""
    try:
        root = ET.fromstring(text)  # noqa: S314 - a document of a test's own
        if root.tag != _ROOT:
            return None
        return [
            SavedComponent(
                UUID(writer.attrib["instanceId"]),
                UUID(writer.attrib["writerId"]),
                ComponentType[one.attrib["componentType"]],
                one.attrib["logicalPath"],
                one.attrib["componentName"],
                succeeded=one.attrib.get("backupSucceeded") == "yes",
            )
            for writer in root.iter(_WRITER)
            for one in writer.iter(_COMPONENT)
        ]
    except (ET.ParseError, KeyError, ValueError):
        return None
