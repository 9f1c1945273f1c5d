"""COM objects made of real vtables.

Each slot is a cffi callback of the type that the binding declares, so the code under test makes
the same indirect calls, with the same argument widths, as on Windows.  A vtable belongs to a class
and is never freed; which object a call means is found by the address of its structure.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from vsssnap._win32._ffi import ffi
from vsssnap._win32.guids import IIDS
from vsssnap._win32.hresult import HResult, failed, signed

if TYPE_CHECKING:
    from vsssnap.testing.fake_vss.machine import Machine

CData = Any
_NAMES = {value: name for name, value in IIDS.items()}
_vtables: dict[tuple[type, str], tuple[CData, list[CData]]] = {}
_objects: dict[int, FakeObject] = {}


def id_of(value: CData) -> UUID:
    """The id in a GUID structure or behind a pointer to one."""
    pointer = ffi.addressof(value) if ffi.typeof(value).kind == "struct" else value
    return UUID(bytes_le=bytes(ffi.buffer(pointer, 16)))


def put_id(out: CData, value: UUID) -> None:
    """Write an id where a pointer points."""
    ffi.memmove(out, value.bytes_le, 16)


def _callback(kind: CData, slot: str) -> CData:
    """A slot that finds its object and calls the method of the slot's name."""
    default = 0 if slot in ("AddRef", "Release") else signed(HResult.E_UNEXPECTED)

    def called(this: CData, *arguments: CData) -> int:
        found = _objects.get(int(ffi.cast("uintptr_t", this)))
        return default if found is None else found.call(slot, arguments)

    return ffi.callback(kind, called, error=default)


def vtable(cls: type, interface: str) -> CData:
    """The slots of an interface for objects of a class."""
    known = _vtables.get((cls, interface))
    if known is None:
        table, keep = ffi.new(f"{interface}Vtbl *"), []
        for slot, field in ffi.typeof(f"{interface}Vtbl").fields:
            callback = _callback(field.type, slot)
            keep.append(callback)  # cffi frees what nobody refers to
            setattr(table, slot, callback)
        known = _vtables[cls, interface] = (table, keep)
    return known[0]


def forget(machine: Machine) -> None:
    """Let the objects of a machine go; a later call on one is an error without a trace."""
    for address in [key for key, found in _objects.items() if found.machine is machine]:
        del _objects[address]


_PATH = frozenset({2})  # the logical path of a component
_ANY = frozenset(range(6))
_MAY_BE_NULL = {
    "InitializeForBackup": frozenset({0}),
    "AddComponent": frozenset({3}),
    "SetBackupSucceeded": frozenset({3}),
    **dict.fromkeys(
        (
            "SetBackupOptions",
            "SetPreviousBackupStamp",
            "SetSelectedForRestore",
            "SetSelectedForRestoreEx",
            "SetRestoreOptions",
            "SetAdditionalRestores",
            "SetFileRestoreStatus",
            "SetRangesFilePath",
            "SetAuthoritativeRestore",
            "SetRestoreName",
            "AddAlternativeLocationMapping",
            "AddNewTarget",
        ),
        _PATH,
    ),
    "AddRestoreSubcomponent": _PATH | {4},
    "SetRollForward": _PATH | {5},
    "ExposeSnapshot": frozenset({1, 3}),
    "AddSnapshotToRecoverySet": frozenset({2}),
    "GetWriterStatusEx": frozenset({6, 7}),
    "AddPartialFile": frozenset({3}),
    "SetFailure": frozenset({2}),
    "GetFailure": frozenset({3}),
    "QueryStatus": frozenset({1}),
    # These say something else than E_INVALIDARG of NULL, or nothing at all.
    **dict.fromkeys(
        (
            "Next",
            "Clone",
            "QueryRevertStatus",
            "PreFastRecovery",
            "FastRecovery",
            "GetDocument",
            "MigrateDiffAreas",
            "QueryMigrationStatus",
            "QuerySnapshotDeltaBitmap",
            "AddDifferencedFilesByLastModifyLSN",
        ),
        _ANY,
    ),
}
"""Arguments of slots, counted from 0 without ``this``, that may be NULL; no others may."""


def _lacks(slot: str, arguments: tuple[CData, ...]) -> bool:
    """Whether a caller has given NULL for something that has to be there."""
    optional = _MAY_BE_NULL.get(slot, frozenset())
    return any(
        index not in optional and isinstance(one, ffi.CData) and one == ffi.NULL
        for index, one in enumerate(arguments)
    )


class FakeObject:
    """A COM object of one vtable; a subclass has a method for every slot but those of IUnknown.

    Such a method gets the arguments without ``this`` and gives an HRESULT as people write it, or
    None for S_OK.

    Attributes:
        interface: The widest interface, whose vtable the object has.
        title: What it is called in `Machine.calls`.
        answers: Names of all interfaces that `QueryInterface` gives.
    """

    interface: ClassVar[str]
    title: ClassVar[str]
    answers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.references = 1
        self._structure = self.build()
        machine.ledger.add("references")

    def build(self) -> CData:
        """The structure that callers see."""
        made = ffi.new(f"{self.interface} *")
        self.place(made, self.interface)
        return made

    def place(self, at: CData, interface: str) -> None:
        """Make what lies at an address an interface of this object."""
        at.lpVtbl = vtable(type(self), interface)
        _objects[int(ffi.cast("uintptr_t", at))] = self

    def give(self, out: CData) -> None:
        """Hand the one reference out."""
        out[0] = ffi.cast(ffi.typeof(out).item, self._structure)

    @property
    def pointer(self) -> CData:
        """What callers call, for one that is given as an argument."""
        return self._structure

    def end(self) -> None:
        """Let go of the first reference."""
        self._count(-1)

    def call(self, slot: str, arguments: tuple[CData, ...]) -> int:
        """Run one slot; nothing is raised into the caller."""
        name = f"{self.title}::{slot}"
        try:
            if self.references <= 0:
                self.machine.ledger.forbid(f"{name} was called on an object that was released")
                return 0 if slot in ("AddRef", "Release") else signed(HResult.E_UNEXPECTED)
            self.machine.check_apartment(name)
            if slot == "QueryInterface":
                return signed(self.query(*arguments) if all(arguments) else HResult.E_POINTER)
            if slot in ("AddRef", "Release"):
                return self._count(1 if slot == "AddRef" else -1)
            self.machine.entered(name)
            code = self.machine.faults.code(slot, "call")
            if code is None and _lacks(slot, arguments):
                code = HResult.E_INVALIDARG
            if code is None:
                method: Callable[..., int | None] = getattr(self, slot)
                code = method(*arguments)
            return signed(code or 0)
        except Exception:
            self.machine.ledger.broke(name)
            return signed(HResult.E_UNEXPECTED)

    def query(self, iid: CData, out: CData) -> int:
        """QueryInterface."""
        name = _NAMES.get(id_of(iid), "")
        if name != "IUnknown" and (name not in self.answers or name in self.machine.hides):
            out[0] = ffi.NULL
            return HResult.E_NOINTERFACE
        self._count(1)
        out[0] = ffi.cast("void *", self._structure)
        return HResult.S_OK

    def _count(self, by: int) -> int:
        self.references += by
        self.machine.ledger.add("references", by)
        if not self.references:
            self.released()
        return self.references

    def released(self) -> None:
        """The last reference is gone."""


class FakeAsync(FakeObject):
    """An operation that takes its time."""

    interface = title = "IVssAsync"
    answers: ClassVar[tuple[str, ...]] = ("IVssAsync",)

    def __init__(self, machine: Machine, step: str, effect: Callable[[], int | None]) -> None:
        """Begin it.

        Args:
            machine: Where.
            step: The call that gives it.
            effect: What happens when it is done, giving its result.
        """
        super().__init__(machine)
        self.step = step
        self._effect = effect
        self._plan = machine.faults.plan(step)
        self._until = time.monotonic() + self._plan.seconds
        self._outcome: int = HResult.VSS_S_ASYNC_PENDING
        self._lock = threading.Lock()

    def _advance(self) -> int:
        with self._lock:
            if self._outcome == HResult.VSS_S_ASYNC_PENDING and time.monotonic() >= self._until:
                code = self._plan.code
                if code is None:
                    code = self._effect()
                self._outcome = code or HResult.VSS_S_ASYNC_FINISHED
            return self._outcome

    def Wait(self, milliseconds: int) -> int:
        """IVssAsync::Wait: an error that comes up during it is its result."""
        before = self._outcome
        end = time.monotonic() + milliseconds / 1000
        while self._advance() == HResult.VSS_S_ASYNC_PENDING and time.monotonic() < end:
            time.sleep(min(0.005, max(0.0, end - time.monotonic())))
        code = self.machine.faults.code(self.step, "wait")
        if code is not None:
            return code
        if before == HResult.VSS_S_ASYNC_PENDING and failed(self._outcome) and not self._plan.silent:
            return self._outcome
        return HResult.S_OK

    def QueryStatus(self, result: CData, reserved: CData) -> int:
        """IVssAsync::QueryStatus."""
        if reserved:
            self.machine.ledger.forbid("IVssAsync::QueryStatus: pReserved should be NULL")
        result[0] = signed(self._advance())
        return HResult.S_OK

    def Cancel(self) -> int:
        """IVssAsync::Cancel."""
        outcome = self._advance()
        if outcome != HResult.VSS_S_ASYNC_PENDING:
            return outcome if outcome == HResult.VSS_S_ASYNC_CANCELLED else HResult.VSS_S_ASYNC_FINISHED
        with self._lock:
            if self._plan.deaf is None:
                self._outcome = HResult.VSS_S_ASYNC_CANCELLED
            else:
                self._until = min(self._until, time.monotonic() + self._plan.deaf)
        return HResult.S_OK

    def released(self) -> None:
        """Releasing what is pending leaves VSS busy."""
        if self._advance() == HResult.VSS_S_ASYNC_PENDING:
            self.machine.ledger.forbid(f"{self.step}: its IVssAsync was released while it was pending")
            self.machine.jammed = True


class FakeRevert(FakeAsync):
    """The reverting of a volume, which goes on whatever becomes of this object.

    Source: IVssBackupComponents::QueryRevertStatus, remarks.
    """

    def Cancel(self) -> int:
        """Nothing is cancelled."""
        return HResult.S_OK

    def released(self) -> None:
        """Nothing is left in the way of others."""
