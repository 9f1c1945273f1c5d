"""Providers, shadow storage and enumerators of the fake; each rule is one of its pages."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from vsssnap._win32 import com, management
from vsssnap._win32._ffi import ffi
from vsssnap._win32.com import Reference, guid, take_text, uuid_of, wide
from vsssnap._win32.constants import DriveType, ProviderCapabilities, ProviderType, SnapshotContext
from vsssnap._win32.guids import CLSIDS, IIDS, SYSTEM_PROVIDER
from vsssnap._win32.hresult import HResult, unsigned
from vsssnap._win32.shadow_copies import ShadowCopies
from vsssnap.testing.fake_vss import FakeShadow, FakeStorage, FakeVolume, FakeVss

ABSENT, INVALID, NO = HResult.VSS_E_OBJECT_NOT_FOUND, HResult.E_INVALIDARG, HResult.E_NOTIMPL
MIB = 1 << 20


@pytest.fixture
def vss() -> Iterator[FakeVss]:
    """A machine with C: and D:, and E: without NTFS; everything is given back when a test ends."""
    machine = FakeVss()
    machine.add_volume("C:\\", free=((3, 5),))
    machine.add_volume("D:\\")
    machine.add_volume("E:\\", filesystem="FAT32")
    com.enter_apartment(machine)
    yield machine
    com.leave_apartment(machine)
    machine.check()
    machine.close()


def named(vss: FakeVss, root: str) -> FakeVolume:
    found = vss.volume(root)
    assert found is not None
    return found


def shadow(vss: FakeVss, root: str = "C:\\", context: int = 0x9) -> FakeShadow:
    made = FakeShadow(uuid4(), uuid4(), named(vss, root), vss.next_number(), context)
    made.created = datetime.now(UTC)
    vss.shadows[made.id] = made
    return made


def call(reference: Reference, slot: str, *arguments: Any) -> int:
    this = reference.pointer
    return unsigned(getattr(this.lpVtbl, slot)(this, *arguments))


@pytest.fixture
def areas(vss: FakeVss) -> Iterator[Reference]:
    """IVssDifferentialSoftwareSnapshotMgmt3."""
    name = "IVssDifferentialSoftwareSnapshotMgmt3"
    with management.create(vss, "VssSnapshotMgmt", "IVssSnapshotMgmt") as manager:
        out = ffi.new("IUnknown **")
        iid, provider = guid(IIDS[name]), guid(SYSTEM_PROVIDER)
        assert call(manager, "GetProviderMgmtInterface", provider[0], iid, out) == HResult.S_OK
    with Reference(ffi.cast(f"{name} *", out[0])) as found:
        yield found


def listed(vss: FakeVss, reference: Reference, slot: str, *arguments: Any) -> list[Any]:
    """What a call enumerates: maximum and place of areas, names and sizes of volumes."""
    out = ffi.new("IVssEnumMgmtObject **")
    assert call(reference, slot, *arguments, out) == HResult.S_OK
    found = []
    with Reference(out[0]) as them:
        prop, fetched = ffi.new("VSS_MGMT_OBJECT_PROP *"), ffi.new("ULONG *")
        while call(them, "Next", 1, prop, fetched) == HResult.S_OK:
            if prop.Type == 3:
                area = prop.Obj.DiffArea
                names = [take_text(vss, area.m_pwszVolumeName), take_text(vss, area.m_pwszDiffAreaVolumeName)]
                found.append((*names, area.m_llMaximumDiffSpace))
            else:
                volume = prop.Obj.DiffVol
                take_text(vss, volume.m_pwszVolumeName)
                shown = take_text(vss, volume.m_pwszVolumeDisplayName)
                sizes = (volume.m_llVolumeFreeSpace, volume.m_llVolumeTotalSpace) if prop.Type == 2 else ()
                found.append((shown, *sizes))
    return found


# Shadow storage.


def test_an_association_is_made_once(vss: FakeVss, areas: Reference) -> None:
    c, d, e = (wide(root) for root in ("C:\\", "D:\\", "E:\\"))
    assert call(areas, "AddDiffArea", c, d, 319 * MIB) == INVALID
    assert call(areas, "AddDiffArea", c, e, -1) == HResult.VSS_E_VOLUME_NOT_SUPPORTED
    assert call(areas, "AddDiffArea", c, wide("X:\\"), -1) == ABSENT
    assert call(areas, "AddDiffArea", c, d, 320 * MIB) == HResult.S_OK
    assert call(areas, "AddDiffArea", c, d, -1) == HResult.VSS_E_OBJECT_ALREADY_EXISTS
    assert call(areas, "AddDiffArea", c, c, -1) == HResult.VSS_E_MAXIMUM_DIFFAREA_ASSOCIATIONS_REACHED
    expected = [(named(vss, "C:\\").guid_path, named(vss, "D:\\").guid_path, 320 * MIB)]
    assert listed(vss, areas, "QueryDiffAreasForVolume", c) == expected
    assert listed(vss, areas, "QueryDiffAreasOnVolume", d) == expected
    assert listed(vss, areas, "QueryDiffAreasOnVolume", c) == []
    assert listed(vss, areas, "QueryDiffAreasForSnapshot", guid(shadow(vss).id)[0]) == expected
    vss.shadows.clear()
    vss.server = False
    assert call(areas, "AddDiffArea", d, d, -1) == NO


def test_a_volume_with_copies_gets_no_association(vss: FakeVss, areas: Reference) -> None:
    shadow(vss)
    assert call(areas, "AddDiffArea", wide("C:\\"), wide("D:\\"), -1) == HResult.VSS_E_PROVIDER_VETO
    vss.shadows.clear()


@pytest.mark.parametrize("slot", ["ChangeDiffAreaMaximumSize", "ChangeDiffAreaMaximumSizeEx"])
def test_an_association_is_changed_and_removed(vss: FakeVss, areas: Reference, slot: str) -> None:
    more = (0,) if slot.endswith("Ex") else ()
    c, d = wide("C:\\"), wide("D:\\")
    vss.makes_storage = False
    assert call(areas, slot, c, d, -1, *more) == ABSENT
    vss.makes_storage = True
    assert call(areas, slot, c, d, 0, *more) == ABSENT
    assert call(areas, slot, c, d, -1, *more) == HResult.S_OK
    assert call(areas, slot, c, c, 400 * MIB, *more) == ABSENT  # it is on D:
    assert call(areas, slot, c, d, 1, *more) == HResult.VSS_E_INSUFFICIENT_STORAGE
    assert call(areas, slot, c, d, -2, *more) == INVALID
    shadow(vss)
    assert call(areas, slot, c, d, 0, *more) == HResult.VSS_E_VOLUME_IN_USE
    vss.shadows.clear()
    if more:
        assert call(areas, slot, c, d, 0, 1) == INVALID
    assert call(areas, slot, c, d, 0, *more) == HResult.S_OK
    assert named(vss, "C:\\").storage is None


def test_only_some_volumes_can_keep_shadow_storage(vss: FakeVss, areas: Reference) -> None:
    vss.add_volume("F:\\", drive_type=DriveType.DRIVE_REMOVABLE)
    total = named(vss, "C:\\").clusters * 4096
    found = listed(vss, areas, "QueryVolumesSupportedForDiffAreas", wide("C:\\"))
    assert found == [("C:\\", 5 * 4096, total), ("D:\\", 0, total)]


@pytest.mark.parametrize(
    "slot", ["QueryVolumesSupportedForDiffAreas", "QueryDiffAreasForVolume", "QueryDiffAreasOnVolume"]
)
def test_what_is_asked_of_no_volume_is_refused(vss: FakeVss, areas: Reference, slot: str) -> None:
    assert call(areas, slot, wide("X:\\"), ffi.new("IVssEnumMgmtObject **")) == ABSENT
    assert call(areas, slot, wide("C:\\"), ffi.NULL) == INVALID
    nothing = guid(UUID(int=1))[0]
    assert call(areas, "QueryDiffAreasForSnapshot", nothing, ffi.new("IVssEnumMgmtObject **")) == ABSENT


def test_what_is_reserved_says_so(vss: FakeVss, areas: Reference) -> None:
    c, null = wide("C:\\"), ffi.NULL
    given = guid(UUID(int=1))[0]
    assert call(areas, "MigrateDiffAreas", c, c, c) == NO
    assert call(areas, "QueryMigrationStatus", c, c, null) == NO
    assert call(areas, "SetSnapshotPriority", given, 1) == NO
    assert call(areas, "QuerySnapshotDeltaBitmap", given, given, null, null, null) == NO


def test_volumes_are_protected_on_servers_alone(vss: FakeVss, areas: Reference) -> None:
    c, info = wide("C:\\"), ffi.new("VSS_VOLUME_PROTECTION_INFO *")
    for server, code in ((True, HResult.S_OK), (False, NO)):
        vss.server = server
        assert call(areas, "SetVolumeProtectLevel", c, 1) == code
        assert call(areas, "GetVolumeProtectLevel", c, info) == code
        assert call(areas, "ClearVolumeProtectFault", c) == code
        assert call(areas, "DeleteUnusedDiffAreas", c) == code
    vss.server = True
    assert call(areas, "SetVolumeProtectLevel", c, 9) == INVALID
    assert call(areas, "GetVolumeProtectLevel", wide("X:\\"), info) == ABSENT


# Providers.


@pytest.fixture
def admin(vss: FakeVss) -> Iterator[Reference]:
    """IVssAdminEx."""
    with management.create(vss, "VSSCoordinator", "IVssAdmin") as found:
        wider = found.query("IVssAdminEx")
        assert wider is not None
        with wider:
            yield wider


def register(admin: Reference, provider_id: UUID, kind: int, name: str | None = "Mine") -> int:
    given, other = guid(provider_id), guid(UUID(int=7))
    text = ffi.NULL if name is None else wide(name)
    return call(admin, "RegisterProvider", given[0], other[0], text, kind, wide("2"), other[0])


def test_a_provider_comes_and_goes(vss: FakeVss, admin: Reference) -> None:
    wanted, hardware = UUID(int=5), ProviderType.VSS_PROV_HARDWARE
    assert register(admin, wanted, hardware, None) == INVALID
    assert register(admin, wanted, ProviderType.VSS_PROV_SYSTEM) == INVALID
    vss.server = False
    assert register(admin, wanted, hardware) == INVALID
    vss.server = True
    assert register(admin, wanted, hardware) == HResult.S_OK
    assert register(admin, wanted, hardware) == HResult.VSS_E_PROVIDER_ALREADY_REGISTERED
    found = management.providers(vss)[1]
    assert (found.id, found.name, found.kind, found.version) == (wanted, "Mine", hardware, "2")
    shadow(vss).provider_id = wanted
    assert call(admin, "UnregisterProvider", guid(wanted)[0]) == HResult.VSS_E_PROVIDER_IN_USE
    vss.shadows.clear()
    assert call(admin, "UnregisterProvider", guid(wanted)[0]) == HResult.S_OK
    assert call(admin, "UnregisterProvider", guid(wanted)[0]) == HResult.VSS_E_PROVIDER_NOT_REGISTERED
    assert call(admin, "UnregisterProvider", guid(SYSTEM_PROVIDER)[0]) == HResult.VSS_E_PROVIDER_IN_USE


def test_a_provider_says_what_it_can(vss: FakeVss, admin: Reference) -> None:
    mask, context = ffi.new("ULONGLONG *"), ffi.new("LONG *")
    array = vss.add_provider("Array")
    assert call(admin, "GetProviderCapability", guid(array.id)[0], mask) == HResult.S_OK
    assert mask[0] & ProviderCapabilities.VSS_PRV_CAPABILITY_LUN_RESYNC
    assert call(admin, "GetProviderCapability", guid(SYSTEM_PROVIDER)[0], mask) == HResult.S_OK
    assert mask[0] & ProviderCapabilities.VSS_PRV_CAPABILITY_DIFFERENTIAL
    assert call(admin, "SetProviderContext", guid(array.id)[0], 9) == HResult.S_OK
    assert call(admin, "GetProviderContext", guid(array.id)[0], context) == HResult.S_OK
    assert context[0] == 9
    for slot, last in (
        ("GetProviderCapability", mask),
        ("GetProviderContext", context),
        ("SetProviderContext", 9),
    ):
        assert call(admin, slot, guid(UUID(int=1))[0], last) == HResult.VSS_E_PROVIDER_NOT_REGISTERED


def test_whoever_ends_the_sets_of_others_is_noted() -> None:
    machine = FakeVss()
    com.enter_apartment(machine)
    with management.create(machine, "VSSCoordinator", "IVssAdmin") as found:
        assert call(found, "AbortAllSnapshotsInProgress") == NO
    com.leave_apartment(machine)
    with pytest.raises(AssertionError, match="reserved for system use"):
        machine.check()
    machine.close()


def test_copies_are_listed_by_volume(vss: FakeVss) -> None:
    mine = shadow(vss)
    shadow(vss, "D:\\")
    out, provider = ffi.new("IVssEnumObject **"), guid(SYSTEM_PROVIDER)[0]
    with management.create(vss, "VssSnapshotMgmt", "IVssSnapshotMgmt") as manager:
        slot = "QuerySnapshotsByVolume"
        assert call(manager, slot, wide("X:\\"), provider, out) == ABSENT
        unknown = HResult.VSS_E_PROVIDER_NOT_REGISTERED
        assert call(manager, slot, wide("C:\\"), guid(UUID(int=1))[0], out) == unknown
        assert call(manager, slot, wide("C:\\"), provider, out) == HResult.S_OK
    assert vss.ledger.violations.pop().startswith("QuerySnapshotsByVolume is reserved")
    with Reference(out[0]) as them:
        prop, fetched = ffi.new("VSS_OBJECT_PROP[2]"), ffi.new("ULONG *")
        assert call(them, "Next", 2, prop, fetched) == HResult.S_FALSE
        assert fetched[0] == 1
        assert uuid_of(prop[0].Obj.Snap.m_SnapshotId) == mine.id
        vss.vssapi.VssFreeSnapshotPropertiesInternal(ffi.addressof(prop[0].Obj, "Snap"))
    vss.shadows.clear()


# Enumerators.


def test_an_enumerator_skips_goes_back_and_is_copied(vss: FakeVss) -> None:
    order = [shadow(vss).id for _ in range(4)]
    it = ShadowCopies(vss)
    it.initialize_for_backup()
    it.set_context(SnapshotContext.VSS_CTX_ALL)
    out, again = ffi.new("IVssEnumObject **"), ffi.new("IVssEnumObject **")
    this = it._this()
    assert this.lpVtbl.Query(this, guid(UUID(int=0))[0], 1, 3, out) == HResult.S_OK
    prop, fetched = ffi.new("VSS_OBJECT_PROP *"), ffi.new("ULONG *")

    def following(them: Reference) -> UUID | None:
        if call(them, "Next", 1, prop, fetched) != HResult.S_OK:
            return None
        found = uuid_of(prop.Obj.Snap.m_SnapshotId)
        vss.vssapi.VssFreeSnapshotPropertiesInternal(ffi.addressof(prop.Obj, "Snap"))
        return found

    with Reference(out[0]) as them:
        assert call(them, "Skip", 2) == HResult.S_OK
        assert call(them, "Clone", ffi.NULL) == HResult.E_POINTER
        assert call(them, "Clone", again) == HResult.S_OK
        assert following(them) == order[2]
        with Reference(again[0]) as other:
            assert following(other) == order[2]  # it stands where the first stood
        assert call(them, "Skip", 2) == HResult.S_FALSE
        assert following(them) is None
        assert call(them, "Reset") == HResult.S_OK
        assert following(them) == order[0]
        assert call(them, "Next", 1, prop, ffi.NULL) == HResult.E_POINTER
    it.release()
    vss.shadows.clear()


def test_the_class_of_providers_has_its_wider_interface(vss: FakeVss) -> None:
    out = ffi.new("void **")
    cls, iid = guid(CLSIDS["VSSCoordinator"]), guid(IIDS["IVssAdminEx"])
    assert vss.ole32.CoCreateInstance(cls, ffi.NULL, 4, iid, out) == HResult.S_OK
    with Reference(ffi.cast("IVssAdminEx *", out[0])) as found:
        assert call(found, "GetProviderContext", guid(SYSTEM_PROVIDER)[0], ffi.new("LONG *")) == HResult.S_OK


def test_storage_on_another_volume_is_that_volumes(vss: FakeVss, areas: Reference) -> None:
    named(vss, "D:\\").storage = FakeStorage(on=named(vss, "C:\\"))
    found = listed(vss, areas, "QueryDiffAreasOnVolume", wide("C:\\"))
    assert [one[0] for one in found] == [named(vss, "D:\\").guid_path]
