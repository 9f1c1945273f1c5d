"""Writers' metadata documents of earlier backups, read by VSS.

Sources: CreateVssExamineWriterMetadata, IVssExamineWriterMetadata::GetRestoreMethod,
::GetAlternateLocationMapping and ::GetExcludeFile in the Windows SDK documentation.  For a thread in the
multithreaded apartment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap._win32 import writer_metadata
from vsssnap._win32._ffi import ffi
from vsssnap._win32.com import Reference, check, given_bstr, take_bstr
from vsssnap._win32.constants import RestoreMethod, WriterRestore
from vsssnap._win32.hresult import HResult
from vsssnap._win32.writer_metadata import bounded, file_set
from vsssnap.errors import ProviderUnavailableError

if TYPE_CHECKING:
    from vsssnap._win32.dll import System
    from vsssnap._win32.writer_metadata import FileSet, WriterMetadata
    from vsssnap._win32.writer_protocols import IVssExamineWriterMetadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a writer said of itself when it was backed up.

    Attributes:
        writer: Its names and components.
        method: How its files are put back.
        called: Whether it takes part in that.
        service: The service that is stopped meanwhile, or "".
        procedure: What people have to do, or "".
        reboot: Whether the machine is restarted then.
        mappings: Where else files may be put, as their ``alternate``.
        excluded: Files that are not backed up.
    """

    writer: WriterMetadata
    method: RestoreMethod
    called: WriterRestore
    service: str
    procedure: str
    reboot: bool
    mappings: tuple[FileSet, ...]
    excluded: tuple[FileSet, ...]


def load(system: System, text: str) -> Document:
    """Have VSS read a document.

    Raises:
        ProviderUnavailableError: vssapi.dll does not do that.
        SnapshotError: it is none of a writer.
    """
    try:
        create = system.vssapi.CreateVssExamineWriterMetadataInternal
    except AttributeError as exc:
        why = "vssapi.dll has no CreateVssExamineWriterMetadataInternal"
        hint = "repair Windows: sfc /scannow"
        raise ProviderUnavailableError(why, hint=hint, reasons={"vss": why}) from exc
    out = ffi.new("IVssExamineWriterMetadata **")
    with given_bstr(system, text) as given:
        check(create(given, out), "CreateVssExamineWriterMetadata")
    if not out[0]:  # S_FALSE: it was not loaded
        check(HResult.VSS_E_INVALID_XML_DOCUMENT, "CreateVssExamineWriterMetadata")
    with Reference(out[0]) as reference:
        return _read(system, reference.pointer)


def _read(system: System, this: IVssExamineWriterMetadata) -> Document:
    method, called = ffi.new("VSS_RESTOREMETHOD_ENUM *"), ffi.new("VSS_WRITERRESTORE_ENUM *")
    service, procedure = ffi.new("BSTR *"), ffi.new("BSTR *")
    reboot, mappings = ffi.new("bool *"), ffi.new("UINT *")
    code = this.lpVtbl.GetRestoreMethod(this, method, service, procedure, called, reboot, mappings)
    texts = [take_bstr(system, one) for one in (service, procedure)]
    check(code, "GetRestoreMethod")
    included, excluded, components = (ffi.new("UINT *") for _ in range(3))
    check(this.lpVtbl.GetFileCounts(this, included, excluded, components), "GetFileCounts")
    sets = []
    for get, call, count in (
        (this.lpVtbl.GetAlternateLocationMapping, "GetAlternateLocationMapping", mappings[0]),
        (this.lpVtbl.GetExcludeFile, "GetExcludeFile", excluded[0]),
    ):
        numbers = range(bounded(count, call))
        sets.append(tuple(file_set(system, this, get, call, index) for index in numbers))
    return Document(
        writer=writer_metadata.read(system, this, components=True, schema=False),
        method=_method(method[0]),
        called=_called(called[0]),
        service=texts[0],
        procedure=texts[1],
        reboot=bool(reboot[0]),
        mappings=sets[0],
        excluded=sets[1],
    )


def _method(value: int) -> RestoreMethod:
    try:
        return RestoreMethod(value)
    except ValueError:
        return RestoreMethod.VSS_RME_UNDEFINED


def _called(value: int) -> WriterRestore:
    try:
        return WriterRestore(value)
    except ValueError:
        return WriterRestore.VSS_WRE_UNDEFINED
