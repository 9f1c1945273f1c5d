"""COM in Python: ids, strings, references, the apartment.

Who owns what (IVssBackupComponents and VSS_SNAPSHOT_PROP in the Windows SDK documentation):
an interface that a call gives is one reference, released once; a BSTR goes to SysFreeString; other
strings to CoTaskMemFree, but those of a VSS_SNAPSHOT_PROP to VssFreeSnapshotProperties.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import (
    COINIT_MULTITHREADED,
    EOAC_STATIC_CLOAKING,
    RPC_C_AUTHN_LEVEL_PKT_PRIVACY,
    RPC_C_IMP_LEVEL_IMPERSONATE,
)
from vsssnap._win32.failures import error_for
from vsssnap._win32.guids import IIDS
from vsssnap._win32.hresult import HResult, failed, unsigned

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from vsssnap._win32.dll import System
    from vsssnap._win32.protocols import CData


def check(code: int, call: str, what: str = "") -> int:
    """Raise what a failed HRESULT means; give back one that succeeded, unsigned."""
    code = unsigned(code)
    if failed(code):
        raise error_for(code, call, what)
    return code


def guid(value: UUID) -> CData:
    """A GUID structure; it lives as long as the result is referred to."""
    made = ffi.new("GUID *")
    ffi.memmove(made, value.bytes_le, 16)
    return made


def uuid_of(value: CData) -> UUID:
    """The id in a GUID structure or behind a pointer to one."""
    pointer = ffi.addressof(value) if ffi.typeof(value).kind == "struct" else value
    return UUID(bytes_le=bytes(ffi.buffer(pointer, 16)))


def wide(text: str) -> CData:
    """A zero-ended UTF-16 string; it lives as long as the result is referred to."""
    return ffi.new("char16_t[]", text)


def text_at(pointer: CData) -> str:
    """The zero-ended string at an address, "" for NULL."""
    return str(ffi.string(pointer)) if pointer else ""


def text_of_bstr(system: System, pointer: CData) -> str:
    """The counted string at an address, which stays its owner's; "" for NULL."""
    return str(ffi.unpack(pointer, system.oleaut32.SysStringLen(pointer))) if pointer else ""


def take_bstr(system: System, slot: CData) -> str:
    """The string that a call put into ``slot`` (a ``BSTR *``), which is freed."""
    pointer, slot[0] = slot[0], ffi.NULL
    try:
        return text_of_bstr(system, pointer)
    finally:
        if pointer:
            system.oleaut32.SysFreeString(pointer)


def take_text(system: System, pointer: CData) -> str:
    """The zero-ended string at an address, which is freed; "" for NULL."""
    text = text_at(pointer)
    if pointer:
        system.ole32.CoTaskMemFree(pointer)
    return text


@contextmanager
def given_bstr(system: System, text: str) -> Iterator[CData]:
    """A BSTR for a call, freed after it."""
    units = text.encode("utf-16-le", "surrogatepass")
    made = system.oleaut32.SysAllocStringLen(ffi.from_buffer("WCHAR[]", units), len(units) // 2)
    if not made:
        check(HResult.E_OUTOFMEMORY, "SysAllocStringLen")
    try:
        yield made
    finally:
        system.oleaut32.SysFreeString(made)


class Reference:
    """One reference to a COM object, which is ours to release.

    For the thread of its apartment only; nothing is released by the collector.
    """

    def __init__(self, pointer: CData) -> None:
        self._pointer = pointer

    @property
    def pointer(self) -> Any:  # noqa: ANN401 - an interface; the callers name which
        """The interface; NULL once it is released, which no caller passes on."""
        assert self._pointer, "a released COM object is used"  # noqa: S101 - a call through NULL ends the process
        return self._pointer

    def query(self, name: str) -> Reference | None:
        """Another interface of the same object, or None if this Windows has it not."""
        out = ffi.new("void **")
        unknown = ffi.cast("IUnknown *", self.pointer)
        iid = guid(IIDS[name])
        code = unsigned(unknown.lpVtbl.QueryInterface(unknown, iid, out))
        if failed(code) or not out[0]:
            return None
        return Reference(ffi.cast(f"{name} *", out[0]))

    def release(self) -> None:
        """Give the reference back.  Idempotent."""
        pointer, self._pointer = self._pointer, ffi.NULL
        if pointer:
            unknown = ffi.cast("IUnknown *", pointer)
            unknown.lpVtbl.Release(unknown)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.release()


def enter_apartment(system: System) -> None:
    """Make the calling thread, one of our own, a member of the multithreaded apartment.

    Raises:
        SnapshotError: it is in another one, which on a thread of our own cannot be.
    """
    check(system.ole32.CoInitializeEx(ffi.NULL, COINIT_MULTITHREADED), "CoInitializeEx")


def leave_apartment(system: System) -> None:
    """Undo `enter_apartment`; no COM object of the thread is left by then."""
    system.ole32.CoUninitialize()


def initialize_security(system: System) -> int:
    """Let writers call back into this process, if nobody has set its COM security yet.

    It is set once in the life of a process.  The values are those of "Security Considerations for
    Requesters": packet privacy, impersonation, static cloaking.

    Returns:
        The HRESULT, unsigned; RPC_E_TOO_LATE means that the host program has set it, which is fine.
    """
    return unsigned(
        system.ole32.CoInitializeSecurity(
            ffi.NULL,
            -1,
            ffi.NULL,
            ffi.NULL,
            RPC_C_AUTHN_LEVEL_PKT_PRIVACY,
            RPC_C_IMP_LEVEL_IMPERSONATE,
            ffi.NULL,
            EOAC_STATIC_CLOAKING,
            ffi.NULL,
        )
    )


def security_is_usable(code: int) -> bool:
    """Whether COM security is set, by us or by somebody before us."""
    return not failed(code) or code == HResult.RPC_E_TOO_LATE
