"""Every slot of every interface of the binding is there on the fake: called one after the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from vsssnap._win32 import com, guids
from vsssnap._win32._ffi import ffi
from vsssnap._win32.com import wide
from vsssnap._win32.hresult import HResult, unsigned
from vsssnap.testing.fake_vss import FakeComponent, FakeFiles, FakeVss
from vsssnap.testing.fake_vss.documents import SavedComponent
from vsssnap.testing.fake_vss.lists import FakeEnumMgmtObject, FakeEnumObject
from vsssnap.testing.fake_vss.management import FakeAdmin, FakeSnapshotMgmt, FakeSnapshotMgmt2
from vsssnap.testing.fake_vss.metadata import FakeDependency, FakeFiledesc, FakeMetadata, FakeWMComponent
from vsssnap.testing.fake_vss.objects import FakeAsync, FakeObject
from vsssnap.testing.fake_vss.requester import FakeBackupComponents
from vsssnap.testing.fake_vss.saved import FakeSavedComponent, FakeWriterComponents
from vsssnap.testing.fake_vss.storage import FakeDiffAreas

RESERVED = {
    "IVssBackupComponentsEx2::PreFastRecovery",
    "IVssBackupComponentsEx2::FastRecovery",
    "IVssExamineWriterMetadata::GetDocument",
    "IVssAdmin::AbortAllSnapshotsInProgress",
    "IVssDifferentialSoftwareSnapshotMgmt2::MigrateDiffAreas",
    "IVssDifferentialSoftwareSnapshotMgmt2::QueryMigrationStatus",
    "IVssDifferentialSoftwareSnapshotMgmt2::SetSnapshotPriority",
    "IVssDifferentialSoftwareSnapshotMgmt3::QuerySnapshotDeltaBitmap",
    "IVssComponent::AddDifferencedFilesByLastModifyLSN",
}
"""Whose pages say "Not supported"; nothing else may answer E_NOTIMPL on a Windows Server."""

SLOTS_OF_UNKNOWN = ("QueryInterface", "AddRef", "Release")


def saved(vss: FakeVss) -> SavedComponent:
    writer = vss.writers[0]
    known = writer.components[0]
    return SavedComponent(writer.instance_id, writer.writer_id, known.kind, known.logical_path, known.name)


def backup(vss: FakeVss) -> FakeObject:
    made = FakeBackupComponents(vss)
    vss.requesters.append(made)
    made.InitializeForBackup(ffi.NULL)
    return made


def restore(vss: FakeVss) -> FakeObject:
    made = FakeBackupComponents(vss)
    vss.requesters.append(made)
    made.purpose, made.writers, made.document = "restore", list(vss.writers), [saved(vss)]
    return made


MAKERS: dict[str, Callable[[FakeVss], FakeObject]] = {
    "IVssBackupComponentsEx4": FakeBackupComponents,
    "IVssBackupComponentsEx4, backup": backup,
    "IVssBackupComponentsEx4, restore": restore,
    "IVssAsync": lambda vss: FakeAsync(vss, "a step", lambda: None),
    "IVssEnumObject": lambda vss: FakeEnumObject(vss, []),
    "IVssEnumMgmtObject": lambda vss: FakeEnumMgmtObject(vss, []),
    "IVssAdminEx": FakeAdmin,
    "IVssSnapshotMgmt": FakeSnapshotMgmt,
    "IVssSnapshotMgmt2": FakeSnapshotMgmt2,
    "IVssDifferentialSoftwareSnapshotMgmt3": FakeDiffAreas,
    "IVssExamineWriterMetadataEx2": lambda vss: FakeMetadata(vss, vss.writers[0]),
    "IVssWMComponent": lambda vss: FakeWMComponent(vss, vss.writers[0].components[0]),
    "IVssWMFiledesc": lambda vss: FakeFiledesc(vss, vss.writers[0].components[0].files[0]),
    "IVssWMDependency": lambda vss: FakeDependency(vss, (UUID(int=1), "", "needed")),
    "IVssComponentEx2, requester": lambda vss: FakeSavedComponent(vss, saved(vss), lambda: True),
    "IVssComponentEx2, backup": lambda vss: FakeSavedComponent(
        vss, saved(vss), lambda: True, event="post_snapshot"
    ),
    "IVssComponentEx2, restore": lambda vss: FakeSavedComponent(
        vss, saved(vss), lambda: True, event="pre_restore"
    ),
    "IVssWriterComponents": lambda vss: FakeWriterComponents(vss, [saved(vss)], lambda: True),
}


@pytest.fixture
def vss() -> Iterator[FakeVss]:
    """A server in the apartment of this thread."""
    machine = FakeVss()
    machine.add_volume("C:\\")
    component = FakeComponent("one", files=(FakeFiles("C:\\data"),))
    machine.add_writer("Writer", components=(component,))
    com.enter_apartment(machine)
    yield machine
    com.leave_apartment(machine)
    machine.close()


def argument(kind: Any) -> Any:
    """A value for a parameter: text for strings, memory for what is filled in, zero for numbers."""
    if kind.kind in ("struct", "union"):
        return ffi.new(f"{kind.cname} *")[0]
    if kind.kind != "pointer":
        return 0
    if kind.item.kind == "primitive" and kind.item.cname == "char16_t":
        return wide("C:\\")
    return ffi.new("GUID *") if kind.item.cname == "void" else ffi.new(kind.cname)


def slots(interface: str) -> dict[str, Any]:
    return {name: field.type for name, field in ffi.typeof(f"{interface}Vtbl").fields}


def interfaces() -> set[str]:
    return {name.removesuffix("Vtbl") for name in ffi.list_types()[0] if name.endswith("Vtbl")}


def base(interface: str) -> str:
    """What a family of interfaces is called by."""
    return re.sub(r"(Ex)?\d*$", "", interface)


def declared_in(slot: str, widest: str) -> str:
    """The narrowest interface of a family that has a slot."""
    family = [one for one in interfaces() if base(one) == base(widest) and slot in slots(one)]
    return f"{min(family, key=lambda one: len(slots(one)))}::{slot}"


@pytest.mark.parametrize("maker", MAKERS)
def test_no_slot_is_missing(vss: FakeVss, maker: str) -> None:
    interface = maker.split(",")[0]
    made = MAKERS[maker](vss)
    structure = made.pointer.components if interface == "IVssWriterComponents" else made.pointer[0]
    this = ffi.addressof(structure)
    answers = {}
    for slot, kind in slots(interface).items():
        if slot not in SLOTS_OF_UNKNOWN:
            code = unsigned(getattr(this.lpVtbl, slot)(this, *map(argument, kind.args[1:])))
            answers[declared_in(slot, interface)] = code
    missing = {slot for slot, code in answers.items() if code == HResult.E_NOTIMPL}
    assert missing <= RESERVED
    if maker != "IVssComponentEx2, requester":  # to whom it is out of order first
        assert missing == {slot for slot in answers if slot in RESERVED}
    assert not [one for one in vss.ledger.violations if " raised: " in one]


@pytest.mark.parametrize("maker", MAKERS)
def test_no_slot_takes_null_for_an_answer(vss: FakeVss, maker: str) -> None:
    interface = maker.split(",")[0]
    made = MAKERS[maker](vss)
    this = ffi.addressof(made.pointer.components if interface == "IVssWriterComponents" else made.pointer[0])
    for slot, kind in slots(interface).items():
        given = [ffi.NULL if one.kind == "pointer" else argument(one) for one in kind.args[1:]]
        if slot == "QueryInterface":
            assert unsigned(this.lpVtbl.QueryInterface(this, *given)) == HResult.E_POINTER
        elif slot not in SLOTS_OF_UNKNOWN:
            code = unsigned(getattr(this.lpVtbl, slot)(this, *given))
            assert (
                code != HResult.S_OK
                or not any(one.kind == "pointer" for one in kind.args[1:])
                or (slot in ("InitializeForBackup", "SetFailure"))
            ), slot
    assert not [one for one in vss.ledger.violations if " raised: " in one]


def test_every_interface_of_the_binding_is_walked() -> None:
    walked = {maker.split(",")[0] for maker in MAKERS}
    left = {one for one in interfaces() - walked if not any(set(slots(one)) <= set(slots(w)) for w in walked)}
    assert not left
    assert walked <= interfaces()
    assert sum(len(slots(one)) - 3 for one in walked) >= 170


def test_what_is_reserved_is_a_slot_of_the_binding() -> None:
    for known in RESERVED:
        interface, slot = known.split("::")
        assert declared_in(slot, interface) == known


@pytest.mark.parametrize("maker", MAKERS)
def test_an_object_answers_for_its_interfaces_alone(vss: FakeVss, maker: str) -> None:
    interface = maker.split(",")[0]
    made = MAKERS[maker](vss)
    out, odd = ffi.new("void **"), com.guid(UUID(int=3))
    first = ffi.cast("IUnknown *", made.pointer)
    this = ffi.addressof(made.pointer, "unknown") if interface == "IVssWriterComponents" else first
    assert unsigned(this.lpVtbl.QueryInterface(this, odd, out)) == HResult.E_NOINTERFACE
    assert not out[0]
    for name in ("IUnknown", *(one for one in made.answers if one in guids.IIDS)):
        before = made.references
        assert this.lpVtbl.QueryInterface(this, com.guid(guids.IIDS[name]), out) == HResult.S_OK
        assert made.references == before + 1
        unknown = ffi.cast("IUnknown *", out[0])
        assert unknown.lpVtbl.Release(unknown) == before


def test_the_components_of_a_writer_are_counted_through_their_second_vtable(vss: FakeVss) -> None:
    made = FakeWriterComponents(vss, [saved(vss)], lambda: True)
    unknown = ffi.addressof(made.pointer, "unknown")
    assert unknown.lpVtbl.AddRef(unknown) == 2
    assert vss.ledger.outstanding()["references"] == 2
    assert unknown.lpVtbl.Release(unknown) == 1
    assert unknown.lpVtbl.Release(unknown) == 0
    assert "references" not in vss.ledger.outstanding()
    them, count = ffi.addressof(made.pointer, "components"), ffi.new("UINT *")
    assert unsigned(them.lpVtbl.GetComponentCount(them, count)) == HResult.E_UNEXPECTED
    assert "was called on an object that was released" in vss.ledger.violations[-1]
