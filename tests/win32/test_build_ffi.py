"""The binding against what Microsoft documents: slots, sizes and offsets, on any 64-bit machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vsssnap._win32 import _ffi, build_ffi
from vsssnap._win32._ffi import ffi


def slots(interface: str) -> list[str]:
    return [name for name, _ in ffi.typeof(f"{interface}Vtbl").fields]


def test_the_generated_module_is_up_to_date() -> None:
    committed = Path(_ffi.__file__).read_text("ascii")
    assert committed == build_ffi.generate(), "run python -m vsssnap._win32.build_ffi"


def test_the_binding_loads_no_parser_of_c() -> None:
    import subprocess

    program = "import vsssnap._win32.backup_components, sys; assert 'pycparser' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


# Slot numbers as documented for programs that call without headers, and where others went wrong.
@pytest.mark.parametrize(
    ("interface", "count", "known"),
    [
        ("IUnknown", 3, {0: "QueryInterface", 1: "AddRef", 2: "Release"}),
        ("IVssAsync", 6, {3: "Cancel", 4: "Wait", 5: "QueryStatus"}),
        ("IVssEnumObject", 7, {3: "Next", 4: "Skip", 5: "Reset", 6: "Clone"}),
        (
            "IVssBackupComponents",
            51,
            {
                3: "GetWriterComponentsCount",
                5: "InitializeForBackup",
                6: "SetBackupState",
                9: "GatherWriterMetadata",
                14: "PrepareForBackup",
                15: "AbortBackup",
                16: "GatherWriterStatus",
                19: "GetWriterStatus",
                20: "SetBackupSucceeded",
                26: "SaveAsXML",
                27: "BackupComplete",
                28: "AddAlternativeLocationMapping",
                34: "PostRestore",
                35: "SetContext",
                36: "StartSnapshotSet",
                37: "AddToSnapshotSet",
                38: "DoSnapshotSet",
                39: "DeleteSnapshots",
                42: "GetSnapshotProperties",
                43: "Query",
                44: "IsVolumeSupported",
                45: "DisableWriterClasses",
                48: "ExposeSnapshot",
                50: "QueryRevertStatus",
            },
        ),
        ("IVssBackupComponentsEx", 53, {51: "GetWriterMetadataEx", 52: "SetSelectedForRestoreEx"}),
        (
            "IVssBackupComponentsEx2",
            60,
            {53: "UnexposeSnapshot", 57: "BreakSnapshotSetEx", 59: "FastRecovery"},
        ),
        ("IVssBackupComponentsEx3", 64, {60: "GetWriterStatusEx", 63: "GetSessionId"}),
        ("IVssBackupComponentsEx4", 65, {64: "GetRootAndLogicalPrefixPaths"}),
        (
            "IVssExamineWriterMetadata",
            14,
            {3: "GetIdentity", 4: "GetFileCounts", 12: "SaveAsXML", 13: "LoadFromXML"},
        ),
        ("IVssExamineWriterMetadataEx", 15, {14: "GetIdentityEx"}),
        ("IVssExamineWriterMetadataEx2", 18, {15: "GetVersion", 17: "GetExcludeFromSnapshotFile"}),
        ("IVssWMComponent", 9, {3: "GetComponentInfo", 4: "FreeComponentInfo", 8: "GetDependency"}),
        ("IVssWMFiledesc", 8, {3: "GetPath", 4: "GetFilespec", 7: "GetBackupTypeMask"}),
        ("IVssWMDependency", 6, {3: "GetWriterId", 5: "GetComponentName"}),
        ("IVssWriterComponents", 3, {0: "GetComponentCount", 1: "GetWriterInfo", 2: "GetComponent"}),
        ("IVssComponentEx2", 50, {3: "GetLogicalPath", 40: "GetDifferencedFile", 49: "GetFailure"}),
        ("IVssSnapshotMgmt", 6, {3: "GetProviderMgmtInterface", 5: "QuerySnapshotsByVolume"}),
        ("IVssSnapshotMgmt2", 4, {3: "GetMinDiffAreaSize"}),
        (
            "IVssDifferentialSoftwareSnapshotMgmt3",
            18,
            {
                3: "AddDiffArea",
                9: "ChangeDiffAreaMaximumSizeEx",
                12: "SetSnapshotPriority",
                17: "QuerySnapshotDeltaBitmap",
            },
        ),
        ("IVssEnumMgmtObject", 7, {3: "Next"}),
        ("IVssAdmin", 7, {5: "QueryProviders", 6: "AbortAllSnapshotsInProgress"}),
        ("IVssAdminEx", 10, {7: "GetProviderCapability", 9: "SetProviderContext"}),
    ],
)
def test_vtable_slots_are_in_header_order(interface: str, count: int, known: dict[int, str]) -> None:
    found = slots(interface)
    assert len(found) == count
    assert {number: found[number] for number in known} == known


@pytest.mark.parametrize(
    ("structure", "size", "offsets"),
    [
        ("GUID", 16, {"Data4": 8}),
        (
            "VSS_SNAPSHOT_PROP",
            128,
            {
                "m_SnapshotSetId": 16,
                "m_lSnapshotsCount": 32,
                "m_pwszSnapshotDeviceObject": 40,
                "m_ProviderId": 88,
                "m_lSnapshotAttributes": 104,
                "m_tsCreationTimestamp": 112,
                "m_eStatus": 120,
            },
        ),
        ("VSS_PROVIDER_PROP", 72, {"m_ClassId": 56}),
        ("VSS_OBJECT_PROP", 136, {"Obj": 8}),
        ("VSS_COMPONENTINFO", 72, {"bSelectable": 46, "dwComponentFlags": 48, "cFileCount": 52}),
        ("VSS_DIFF_AREA_PROP", 40, {}),
        ("VSS_DIFF_VOLUME_PROP", 32, {}),
        ("VSS_MGMT_OBJECT_PROP", 48, {"Obj": 8}),
        ("VSS_VOLUME_PROTECTION_INFO", 24, {}),
        ("NTFS_VOLUME_DATA_BUFFER", 96, {"BytesPerSector": 40}),
        ("VOLUME_BITMAP_BUFFER", 24, {"Buffer": 16}),
        ("OVERLAPPED", 32, {"Offset": 16, "hEvent": 24}),
        ("IVssWriterComponentsExt", 16, {"unknown": 8}),
    ],
)
def test_structures_have_the_layout_of_windows(structure: str, size: int, offsets: dict[str, int]) -> None:
    assert ffi.sizeof(structure) == size
    assert {name: ffi.offsetof(structure, name) for name in offsets} == offsets


def test_widths_are_those_of_windows_on_every_host() -> None:
    widths = {
        "LONG": 4,
        "ULONG": 4,
        "WCHAR": 2,
        "BOOL": 4,
        "bool": 1,
        "HRESULT": 4,
        "LONGLONG": 8,
        "HANDLE": 8,
    }
    assert {name: ffi.sizeof(name) for name in widths} == widths


def test_a_guid_is_passed_by_value() -> None:
    fields = dict(ffi.typeof("IVssBackupComponentsVtbl").fields)
    assert [argument.cname for argument in fields["DeleteSnapshots"].type.args] == [
        "struct IVssBackupComponents *",
        "GUID",
        "int32_t",
        "int32_t",
        "int32_t *",
        "GUID *",
    ]


def test_an_interface_without_a_base_has_no_slots_of_iunknown() -> None:
    assert slots("IVssWriterComponents")[0] == "GetComponentCount"
