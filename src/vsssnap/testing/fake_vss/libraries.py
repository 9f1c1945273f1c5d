"""The functions of Windows, as callbacks of the types that the binding declares."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import CLSCTX_LOCAL_SERVER, Win32Error
from vsssnap._win32.hresult import HResult, signed
from vsssnap.testing.fake_vss import writer_documents
from vsssnap.testing.fake_vss.management import CLASSES
from vsssnap.testing.fake_vss.metadata import FakeMetadata
from vsssnap.testing.fake_vss.objects import id_of
from vsssnap.testing.fake_vss.requester import FakeBackupComponents

if TYPE_CHECKING:
    from vsssnap.testing.fake_vss.machine import Machine

CData = Any


def library(name: str, functions: object, machine: Machine) -> Any:  # noqa: ANN401 - a library
    """An object with every function of a library that ``functions`` has a method for."""
    made = SimpleNamespace()
    for function, field in ffi.typeof(f"{name.upper()}_FUNCTIONS").fields:
        method = getattr(functions, function, None)
        if method is not None:
            kind = field.type.result.kind
            default = {"void": None, "pointer": ffi.NULL}.get(kind, 0)
            setattr(made, function, ffi.callback(field.type, _guarded(machine, function, method, default)))
    return made


def _guarded(
    machine: Machine,
    name: str,
    method: Callable[..., Any],
    default: Any,  # noqa: ANN401 - of the function's type
) -> Callable[..., Any]:
    def called(*arguments: CData) -> Any:  # noqa: ANN401 - what the function gives
        try:
            return method(*arguments)
        except Exception:  # none may cross into C
            machine.ledger.broke(name)
            return default

    return called


class Com:
    """ole32, oleaut32 and vssapi."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def CoInitializeEx(self, reserved: CData, flags: int) -> int:
        """Once more for this thread, in one kind of apartment only."""
        del reserved
        apartments = self._machine.apartments
        thread = threading.get_ident()
        known = apartments.get(thread)
        if known and known[0] != flags:
            return signed(HResult.RPC_E_CHANGED_MODE)
        apartments[thread] = (flags, known[1] + 1 if known else 1)
        self._machine.ledger.add("apartments")
        return HResult.S_FALSE if known else HResult.S_OK

    def CoUninitialize(self) -> None:
        """Once for each CoInitializeEx that succeeded."""
        thread = threading.get_ident()
        flags, count = self._machine.apartments.pop(thread, (0, 0))
        self._machine.ledger.add("apartments", -1)
        if count > 1:
            self._machine.apartments[thread] = (flags, count - 1)

    def CoInitializeSecurity(self, *arguments: CData) -> int:
        """Once in the life of a process."""
        del arguments
        code = self._machine.faults.code("CoInitializeSecurity", "call")
        if code is not None:
            return signed(code)
        if self._machine.security_set:
            return signed(HResult.RPC_E_TOO_LATE)
        self._machine.security_set = True
        return HResult.S_OK

    def CoCreateInstance(self, cls: CData, outer: CData, context: int, iid: CData, out: CData) -> int:
        """An object of the service, which is a server of its own."""
        machine = self._machine
        machine.check_apartment("CoCreateInstance")
        code = machine.faults.code("CoCreateInstance", "call")
        if code is None and not machine.elevated:
            code = HResult.E_ACCESSDENIED
        made = CLASSES.get((id_of(cls), id_of(iid)))
        if code is None and (made is None or context != CLSCTX_LOCAL_SERVER or outer):
            code = HResult.REGDB_E_CLASSNOTREG
        if code is not None or made is None:
            return signed(code or HResult.E_FAIL)
        made(machine).give(out)
        return HResult.S_OK

    def CoTaskMemFree(self, memory: CData) -> None:
        """Memory of a call's result."""
        if memory:
            self._machine.ledger.take_back("task memory", int(ffi.cast("uintptr_t", memory)))

    def SysAllocStringLen(self, text: CData, length: int) -> CData:
        """A new BSTR of so many units."""
        return self._machine.bstr(str(ffi.unpack(text, length)) if length else "")

    def SysFreeString(self, text: CData) -> None:
        """A BSTR."""
        if text:
            self._machine.ledger.take_back("BSTR", int(ffi.cast("uintptr_t", text)))

    def SysStringLen(self, text: CData) -> int:
        """UTF-16 units of a BSTR."""
        return self._machine.ledger.length("BSTR", int(ffi.cast("uintptr_t", text))) if text else 0

    def CreateVssBackupComponentsInternal(self, out: CData) -> int:
        """A new requester, for administrators and backup operators."""
        machine = self._machine
        machine.check_apartment("CreateVssBackupComponents")
        machine.entered("CreateVssBackupComponents")
        code = machine.faults.code("CreateVssBackupComponents", "call")
        if code is None and not machine.elevated:
            code = HResult.E_ACCESSDENIED
        if code is None and machine.service:
            code = HResult.ERROR_SERVICE_DISABLED
        if code is not None:
            return signed(code)
        made = FakeBackupComponents(machine)
        machine.requesters.append(made)
        made.give(out)
        return HResult.S_OK

    def CreateVssExamineWriterMetadataInternal(self, xml: CData, out: CData) -> int:
        """What SaveAsXML of one wrote, for administrators and backup operators."""
        machine = self._machine
        machine.check_apartment("CreateVssExamineWriterMetadata")
        machine.entered("CreateVssExamineWriterMetadata")
        code = machine.faults.code("CreateVssExamineWriterMetadata", "call")
        if code is None and not machine.elevated:
            code = HResult.E_ACCESSDENIED
        if code is None and not (xml and out):
            code = HResult.E_INVALIDARG
        if code is not None:
            return signed(code)
        try:
            found = writer_documents.read(str(ffi.string(xml)))
        except ValueError:
            found = None
        if found is None:
            return signed(HResult.VSS_E_INVALID_XML_DOCUMENT)
        FakeMetadata(machine, found).give(out)
        return HResult.S_OK

    def ShouldBlockRevertInternal(self, name: CData, out: CData) -> int:
        """Whether a writer that the registry lists has data on a volume; on servers alone."""
        machine = self._machine
        machine.entered("ShouldBlockRevert")
        code = machine.faults.code("ShouldBlockRevert", "call")
        volume = machine.volume(str(ffi.string(name))) if name else None
        if code is None and (volume is None or not out):
            code = HResult.E_INVALIDARG
        if code is None and not machine.server:
            code = HResult.E_NOTIMPL
        if code is not None or volume is None:
            return signed(code or HResult.E_FAIL)
        roots = tuple(root.lower() for root in volume.roots)
        paths = (
            files.path.lower().rstrip("\\") + "\\"
            for writer in machine.writers
            if writer.blocks_revert
            for component in writer.components
            for files in component.files
        )
        out[0] = any(path.startswith(roots) for path in paths)
        return HResult.S_OK

    def VssFreeSnapshotPropertiesInternal(self, properties: CData) -> None:
        """The strings in a VSS_SNAPSHOT_PROP."""
        for name, field in ffi.typeof("VSS_SNAPSHOT_PROP").fields:
            if field.type.kind == "pointer" and getattr(properties, name):
                address = int(ffi.cast("uintptr_t", getattr(properties, name)))
                self._machine.ledger.take_back("snapshot strings", address)
                setattr(properties, name, ffi.NULL)


class Rights:
    """advapi32, and what kernel32 knows of the process."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def GetCurrentProcess(self) -> CData:
        """A handle that need not be closed."""
        return ffi.cast("HANDLE", -1)

    def IsWow64Process(self, process: CData, out: CData) -> int:
        """Whether it is a 32-bit one on a 64-bit system."""
        del process
        out[0] = self._machine.wow64
        return 1

    def OpenProcessToken(self, process: CData, access: int, out: CData) -> int:
        """The token of the process."""
        del process, access
        out[0] = self._machine.handle("token")
        return 1

    def GetTokenInformation(self, token: CData, kind: int, out: CData, size: int, needed: CData) -> int:
        """Its elevation."""
        del token
        if kind != 20 or size < 4:
            return self._machine.refuse(Win32Error.ERROR_INVALID_PARAMETER)
        ffi.cast("DWORD *", out)[0] = self._machine.elevated
        needed[0] = 4
        return 1

    def LookupPrivilegeValueW(self, machine: CData, name: CData, out: CData) -> int:
        """The number of a privilege."""
        del machine, name
        out.LowPart = 17
        return 1

    def AdjustTokenPrivileges(self, *arguments: CData) -> int:
        """Succeeds also if the account has not the privilege; the last error then says so."""
        del arguments
        self._machine.set_error(
            Win32Error.ERROR_SUCCESS if self._machine.elevated else Win32Error.ERROR_NOT_ALL_ASSIGNED
        )
        return 1

    def OpenSCManagerW(self, machine: CData, database: CData, access: int) -> CData:
        """The service manager."""
        del machine, database, access
        return self._machine.handle("service")

    def OpenServiceW(self, manager: CData, name: CData, access: int) -> CData:
        """A service."""
        del manager, access
        if str(ffi.string(name)) != "VSS" or self._machine.service == "missing":
            self._machine.set_error(Win32Error.ERROR_SERVICE_DOES_NOT_EXIST)
            return ffi.NULL
        return self._machine.handle("service")

    def QueryServiceConfigW(self, service: CData, out: CData, size: int, needed: CData) -> int:
        """How it is started."""
        del service, size, needed
        out.dwStartType = 4 if self._machine.service == "disabled" else 3
        return 1

    def CloseServiceHandle(self, handle: CData) -> int:
        """A handle of the service manager."""
        return self._machine.close_handle(handle, "service")
