"""Writer metadata documents of fake writers, written and read.

The names are those that "Writer Metadata Document Contents" gives and real documents have.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING
from uuid import UUID

from vsssnap._win32.constants import BackupSchema, ComponentType, RestoreMethod, WriterRestore
from vsssnap.testing.fake_vss.writers import FakeComponent, FakeFiles, FakeWriter

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAMESPACE = "x-schema:#VssWriterMetadata"
_ROOT = "WRITER_METADATA"
_KINDS = {ComponentType.VSS_CT_DATABASE: "DATABASE", ComponentType.VSS_CT_FILEGROUP: "FILE_GROUP"}
_FILES = {"DATABASE": "DATABASE_FILES", "FILE_GROUP": "FILE_LIST"}
_SAID = {True: "yes", False: "no"}


def write(writer: FakeWriter) -> str:
    """The document of a writer."""
    facts = {"xmlns": _NAMESPACE, "version": "1.1", "backupSchema": str(int(writer.schema))}
    root = ET.Element(_ROOT, facts)
    names = {
        "writerId": str(writer.writer_id),
        "instanceId": str(writer.instance_id),
        "friendlyName": writer.name,
        "instanceName": writer.instance_name,
        "majorVersion": str(writer.version[0]),
        "minorVersion": str(writer.version[1]),
    }
    ET.SubElement(root, "IDENTIFICATION", names)
    method = {
        "method": writer.restore_method.name,
        "writerRestore": writer.called_after.name,
        "service": writer.service,
        "userProcedure": writer.procedure,
        "rebootRequired": _SAID[writer.reboot],
    }
    places = ET.SubElement(root, "RESTORE_METHOD", method)
    _add(places, "ALTERNATE_LOCATION_MAPPING", writer.mappings)
    inside = ET.SubElement(root, "BACKUP_LOCATIONS")
    _add(inside, "EXCLUDE_FILES", writer.excludes)
    _add(inside, "EXCLUDE_FILES_FROM_SNAPSHOT", writer.not_in_snapshot)
    for one in writer.components:
        kind = _KINDS[one.kind]
        made = ET.SubElement(
            inside,
            kind,
            {
                "logicalPath": one.logical_path,
                "componentName": one.name,
                "selectable": _SAID[one.selectable],
                "selectableForRestore": _SAID[one.selectable_for_restore],
            },
        )
        _add(made, _FILES[kind], one.files)
        for writer_id, path, name in one.needs:
            needed = {"writerId": str(writer_id), "logicalPath": path, "componentName": name}
            ET.SubElement(made, "DEPENDENCY", needed)
    return ET.tostring(root, "unicode")


def _add(to: ET.Element, name: str, files: Iterable[FakeFiles]) -> None:
    for one in files:
        facts = {"path": one.path, "filespec": one.spec, "recursive": _SAID[one.recursive]}
        ET.SubElement(to, name, facts | ({"alternatePath": one.alternate} if one.alternate else {}))


def read(text: str) -> FakeWriter | None:
    """The writer that a document is of; None if it is of none.

    Raises:
        ValueError: it is not even XML.
    """
    try:
        root = ET.fromstring(text)  # noqa: S314 - a document of a test's own
    except ET.ParseError as exc:
        raise ValueError(str(exc)) from None
    space = f"{{{_NAMESPACE}}}"
    who, places = root.find(f"{space}IDENTIFICATION"), root.find(f"{space}RESTORE_METHOD")
    inside = root.find(f"{space}BACKUP_LOCATIONS")
    if root.tag != space + _ROOT or who is None or places is None or inside is None:
        return None
    try:
        return FakeWriter(
            who.attrib["friendlyName"],
            writer_id=UUID(who.attrib["writerId"]),
            instance_id=UUID(who.attrib["instanceId"]),
            instance_name=who.attrib["instanceName"],
            version=(int(who.attrib["majorVersion"]), int(who.attrib["minorVersion"])),
            schema=BackupSchema(int(root.attrib["backupSchema"])),
            restore_method=RestoreMethod[places.attrib["method"]],
            called_after=WriterRestore[places.attrib["writerRestore"]],
            service=places.attrib["service"],
            procedure=places.attrib["userProcedure"],
            reboot=places.attrib["rebootRequired"] == "yes",
            mappings=_files(places, f"{space}ALTERNATE_LOCATION_MAPPING"),
            excludes=_files(inside, f"{space}EXCLUDE_FILES"),
            not_in_snapshot=_files(inside, f"{space}EXCLUDE_FILES_FROM_SNAPSHOT"),
            components=tuple(
                _component(one, kind, space) for kind in _KINDS for one in inside.iter(space + _KINDS[kind])
            ),
        )
    except (KeyError, ValueError):
        return None


def _component(one: ET.Element, kind: ComponentType, space: str) -> FakeComponent:
    return FakeComponent(
        one.attrib["componentName"],
        one.attrib["logicalPath"],
        selectable=one.attrib["selectable"] == "yes",
        selectable_for_restore=one.attrib["selectableForRestore"] == "yes",
        kind=kind,
        files=_files(one, space + _FILES[_KINDS[kind]]),
        needs=tuple(
            (UUID(known.attrib["writerId"]), known.attrib["logicalPath"], known.attrib["componentName"])
            for known in one.iter(f"{space}DEPENDENCY")
        ),
    )


def _files(inside: ET.Element, tag: str) -> tuple[FakeFiles, ...]:
    return tuple(
        FakeFiles(
            one.attrib["path"],
            one.attrib["filespec"],
            one.attrib["recursive"] == "yes",
            one.attrib.get("alternatePath", ""),
        )
        for one in inside.iter(tag)
    )
