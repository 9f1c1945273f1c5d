"""What VSS writers say of themselves, read out of `IVssExamineWriterMetadata` and what it gives.

Sources: vsbackup.h, and the pages of IVssExamineWriterMetadata, IVssWMComponent, IVssWMFiledesc,
IVssWMDependency and VSS_COMPONENTINFO in the Windows SDK documentation.  For the one thread that
owns the requester.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap._win32._ffi import ffi
from vsssnap._win32.com import Reference, check, take_bstr, text_of_bstr, uuid_of
from vsssnap._win32.constants import BackupSchema, ComponentType
from vsssnap._win32.hresult import HResult
from vsssnap.errors import SnapshotError

if TYPE_CHECKING:
    from uuid import UUID

    from vsssnap._win32.dll import System
    from vsssnap._win32.protocols import CData
    from vsssnap._win32.writer_protocols import (
        IVssExamineWriterMetadata,
        IVssWMComponent,
        IVssWMDependency,
        IVssWMFiledesc,
    )

_MOST = 1 << 20  # components of a writer, or files of a component: more is a broken document


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSet:
    """Files of a component.

    Attributes:
        path: Their folder, with environment variables in it.
        spec: Their names, with wildcards.
        recursive: Whether folders below belong to it.
        alternate: The folder that they are backed up from instead, or "".
    """

    path: str
    spec: str = "*"
    recursive: bool = False
    alternate: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """A component, perhaps of another writer, that has to be backed up as well."""

    writer_id: UUID
    logical_path: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """What a writer has to back up, as it says itself (VSS_COMPONENTINFO).

    Attributes:
        selectable: Whether a requester may choose it ("selectable for backup").
        selectable_for_restore: Likewise when it is restored.
        files: Its files, be they of a group, of a database, or logs.
    """

    kind: ComponentType
    logical_path: str
    name: str
    caption: str = ""
    selectable: bool = True
    selectable_for_restore: bool = False
    files: tuple[FileSet, ...] = ()
    dependencies: tuple[Dependency, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterMetadata:
    """What a writer says of itself.

    Attributes:
        document: The whole, as XML.
        components: What it has; only as far as they were asked for.
        schema: What kinds of backup it knows; only if it was asked for.
    """

    name: str
    writer_id: UUID
    instance_id: UUID
    document: str
    components: tuple[Component, ...] = ()
    schema: BackupSchema = BackupSchema.VSS_BS_UNDEFINED


def read(
    system: System, metadata: IVssExamineWriterMetadata, *, components: bool, schema: bool
) -> WriterMetadata:
    """Everything of one writer.

    Raises:
        SnapshotError: its document cannot be read.
    """
    instance, writer, name = ffi.new("VSS_ID *"), ffi.new("VSS_ID *"), ffi.new("BSTR *")
    usage, source = ffi.new("VSS_USAGE_TYPE *"), ffi.new("VSS_SOURCE_TYPE *")
    check(metadata.lpVtbl.GetIdentity(metadata, instance, writer, name, usage, source), "GetIdentity")
    title = take_bstr(system, name)
    xml = ffi.new("BSTR *")
    check(metadata.lpVtbl.SaveAsXML(metadata, xml), "IVssExamineWriterMetadata::SaveAsXML", title)
    return WriterMetadata(
        name=title,
        writer_id=uuid_of(writer),
        instance_id=uuid_of(instance),
        document=take_bstr(system, xml),
        components=_components(system, metadata) if components else (),
        schema=_schema(metadata, title) if schema else BackupSchema.VSS_BS_UNDEFINED,
    )


def _schema(metadata: IVssExamineWriterMetadata, title: str) -> BackupSchema:
    out = ffi.new("DWORD *")
    check(metadata.lpVtbl.GetBackupSchema(metadata, out), "GetBackupSchema", title)
    return BackupSchema(out[0])


def _components(system: System, metadata: IVssExamineWriterMetadata) -> tuple[Component, ...]:
    included, excluded, count = (ffi.new("UINT *") for _ in range(3))
    check(metadata.lpVtbl.GetFileCounts(metadata, included, excluded, count), "GetFileCounts")
    found = []
    for index in range(bounded(count[0], "GetFileCounts")):
        out = ffi.new("IVssWMComponent **")
        check(metadata.lpVtbl.GetComponent(metadata, index, out), "GetComponent")
        with Reference(out[0]) as reference:
            found.append(_component(system, reference.pointer))
    return tuple(found)


def _component(system: System, this: IVssWMComponent) -> Component:
    out = ffi.new("const VSS_COMPONENTINFO **")
    check(this.lpVtbl.GetComponentInfo(this, out), "GetComponentInfo")
    try:
        info = out[0][0]
        sets = (
            (this.lpVtbl.GetFile, "GetFile", info.cFileCount),
            (this.lpVtbl.GetDatabaseFile, "GetDatabaseFile", info.cDatabases),
            (this.lpVtbl.GetDatabaseLogFile, "GetDatabaseLogFile", info.cLogFiles),
        )
        return Component(
            kind=_kind(info.type),
            logical_path=text_of_bstr(system, info.bstrLogicalPath),
            name=text_of_bstr(system, info.bstrComponentName),
            caption=text_of_bstr(system, info.bstrCaption),
            selectable=bool(info.bSelectable),
            selectable_for_restore=bool(info.bSelectableForRestore),
            files=tuple(
                file_set(system, this, get, call, index)
                for get, call, count in sets
                for index in range(bounded(count, call))
            ),
            dependencies=tuple(
                _dependency(system, this, index)
                for index in range(bounded(info.cDependencies, "GetDependency"))
            ),
        )
    finally:
        this.lpVtbl.FreeComponentInfo(this, out[0])  # before the component itself goes


def file_set(
    system: System, this: CData, get: Callable[[CData, int, CData], int], call: str, index: int
) -> FileSet:
    """One of the file sets that an object gives by their numbers."""
    out = ffi.new("IVssWMFiledesc **")
    check(get(this, index, out), call)
    with Reference(out[0]) as reference:
        files: IVssWMFiledesc = reference.pointer
        recursive = ffi.new("bool *")
        check(files.lpVtbl.GetRecursive(files, recursive), "GetRecursive")
        return FileSet(
            path=_text(system, files, files.lpVtbl.GetPath, "GetPath"),
            spec=_text(system, files, files.lpVtbl.GetFilespec, "GetFilespec"),
            recursive=bool(recursive[0]),
            alternate=_text(system, files, files.lpVtbl.GetAlternateLocation, "GetAlternateLocation"),
        )


def _dependency(system: System, this: IVssWMComponent, index: int) -> Dependency:
    out, writer = ffi.new("IVssWMDependency **"), ffi.new("VSS_ID *")
    check(this.lpVtbl.GetDependency(this, index, out), "GetDependency")
    with Reference(out[0]) as reference:
        that: IVssWMDependency = reference.pointer
        check(that.lpVtbl.GetWriterId(that, writer), "GetWriterId")
        return Dependency(
            writer_id=uuid_of(writer),
            logical_path=_text(system, that, that.lpVtbl.GetLogicalPath, "GetLogicalPath"),
            name=_text(system, that, that.lpVtbl.GetComponentName, "GetComponentName"),
        )


def _text(system: System, this: CData, get: Callable[[CData, CData], int], call: str) -> str:
    """A string of an object; S_FALSE and NULL stand for none."""
    out = ffi.new("BSTR *")
    check(get(this, out), call)
    return take_bstr(system, out)


def _kind(value: int) -> ComponentType:
    try:
        return ComponentType(value)
    except ValueError:
        return ComponentType.VSS_CT_UNDEFINED


def bounded(count: int, call: str) -> int:
    """How many of something there are, as a writer says.

    Raises:
        SnapshotError: so many that its document is broken.
    """
    if count > _MOST:
        raise SnapshotError(
            f"{call} speaks of {count} things, above {_MOST}",
            call=call,
            code=HResult.VSS_E_CORRUPT_XML_DOCUMENT,
            hint="see `vssadmin list writers`; leave that writer out with exclude_writers",
        )
    return count
