"""The functions that look after VSS, in the real Windows Python run by Wine, against another program's code.

Classes that Windows keeps in its service are registered in the process, where the same calls find them.
All scenes run in one process, twice; after each it is counted what is left.
"""

from __future__ import annotations

from typing import Any

import pytest

from wine_vss import played

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1000)]

DENIED, STORAGE_FULL = 0x80070005, 0x8004231F
MIB = 1 << 20
AREA = {"allocated": 12 << 30, "used": 5}
ON_Z = {"volume": "C:\\", "storage": "Z:\\", **AREA}

Found = dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What all scenes came to."""
    return played("management.py", tmp_path_factory.mktemp("windows"))


@pytest.fixture(scope="module")
def scenes(run: Found) -> dict[str, Found]:
    found: dict[str, Found] = run["scenes"]
    return found


def test_writers_and_providers_are_listed(scenes: dict[str, Found]) -> None:
    assert [(one["name"], one["state"], one["writer_id"]) for one in scenes["writers"]["result"]] == [
        ("Idle Writer", "STABLE", "55555555-6666-7777-8888-060504030201"),
        ("Lab Writer", "STABLE", "11111111-2222-3333-4444-010203040506"),
    ]
    assert [tuple(one.values()) for one in scenes["providers"]["result"]] == [
        ("b5946137-7b9f-4925-af80-51abd60b20d5", "Lab provider", "system", "1.0.0.7"),
        ("0badcafe-1234-5678-9abc-def012345678", "Sp\u00e4tzle \U0001f400", "hardware", ""),
    ]


def test_shadow_storage_is_told_made_and_limited(scenes: dict[str, Found]) -> None:
    none, both, one, more = scenes["storage"]["result"]
    assert none == []
    assert both == [
        {**ON_Z, "maximum": 400 * MIB},
        {**ON_Z, "volume": "Z:\\", "maximum": None},
    ]
    assert one == both[:1]
    assert more == [{**both[1], "maximum": (5 << 40) - 1}], "a number of 64 bits"
    numbers = [line for line in scenes["storage"]["calls"] if line.startswith("  ")]
    assert numbers == ["  419430400 0", "  -1 0", "  5497558138879 0"]


def test_a_volume_is_protected_and_put_back_to_use(scenes: dict[str, Found]) -> None:
    least, fresh, offline, cleared, back, other = scenes["protection"]["result"]
    well = {"offline": False, "fault": "", "status": "", "unused_storage": False}
    assert least == 320 * MIB
    assert fresh == back == other == {"level": "VOLUME", **well}
    assert offline == {
        "level": "SHADOW_COPIES",
        "offline": True,
        "fault": "DIFF_AREA_FULL",
        "status": "VSS_E_INSUFFICIENT_STORAGE",
        "unused_storage": True,
    }
    assert cleared == {"level": "SHADOW_COPIES", **well}


def test_a_windows_that_is_no_server_is_told_so(scenes: dict[str, Found]) -> None:
    maximum, least, *refused = scenes["no server"]["result"]
    assert (maximum, least) == (400 * MIB, 320 * MIB), "the rest works"
    assert refused == [["ProviderUnavailableError", "Windows Server has it"]] * 4


def test_storage_that_is_too_little_or_too_much_is_refused(scenes: dict[str, Found]) -> None:
    for name in ("too little", "too much"):
        assert (scenes[name]["error"], scenes[name]["code"]) == ("InsufficientStorageError", STORAGE_FULL)


def test_storage_that_is_full_is_described(scenes: dict[str, Found]) -> None:
    scene = scenes["full"]
    assert (scene["error"], scene["code"]) == ("InsufficientStorageError", STORAGE_FULL)
    assert scene["notes"] == ["shadow storage of C:\\ on C:\\: 5 B used, 12.0 GiB allocated, 400 MiB at most"]


def test_a_windows_that_makes_no_storage_by_itself_is_told_to(scenes: dict[str, Found]) -> None:
    scene = scenes["old storage"]
    assert scene["result"] == [{"volume": "C:\\", "storage": "C:\\", "maximum": 500 * MIB, **AREA}]
    assert scene["calls"].count("AddDiffArea") == 1


def test_a_backup_that_continues_one_hands_over_its_stamps(scenes: dict[str, Found]) -> None:
    scene = scenes["continued"]
    assert scene["result"] == ["Lab Writer: up\\needy has no stamp of the backup that this one continues."]
    told = [line for line in scene["calls"] if line.startswith(("  whole: ", "  needy: ", "  select"))]
    assert told == [
        "  select 1, kind 2",
        "  whole: m\u00f6ve",
        "  whole: stamp of whole",
        "  needy: m\u00f6ve",
    ]


def test_where_files_of_a_restore_go_is_told_both_ways(scenes: dict[str, Found]) -> None:
    part, whole = scenes["placed"]["result"]
    assert part["target"] == "DIRECTED"
    assert part["directed"] == [
        {
            "path": "C:\\old",
            "name": "a.mdf",
            "ranges": [[16, 16], [64, 1]],
            "to_path": "D:\\new",
            "to_name": "b.mdf",
            "to_ranges": [[0, 16], [32, 1]],
        }
    ]
    assert whole == {"target": "ORIGINAL", "directed": []}
    assert [line for line in scenes["placed"]["calls"] if ": " in line] == [
        "  part: 1",
        "  part: %SystemDrive%\\lab *.mdf 1 to D:\\new",
        "  whole: below\\it",
        "  part: %SystemDrive%\\lab *.mdf 1 to E:\\else",
    ]


def test_a_volume_is_reverted_unless_something_speaks_against_it(scenes: dict[str, Found]) -> None:
    for name, force in (("reverted", 0), ("reverted, dismounted", 1)):
        assert scenes[name]["error"] == ""
        assert scenes[name]["calls"].count(f"  {force}") == 1
        assert [line for line in scenes[name]["calls"] if line.startswith("  is ")] == [
            "  is reverted",
            "  is not",
        ]
    assert scenes["reverted, in use"]["error"] == "SnapshotBusyError"
    assert scenes["reverted, blocked"]["error"] == "ProviderUnavailableError"
    assert "RevertToSnapshot" not in scenes["reverted, blocked"]["calls"]
    assert scenes["revert hangs"]["result"].startswith("SnapshotTimeoutError the volume is being reverted")
    assert "Cancel" not in scenes["revert hangs"]["calls"], "nothing stops it"


def test_a_set_is_broken_into_volumes(scenes: dict[str, Found]) -> None:
    assert scenes["broken"]["result"] == [["\\\\?\\GLOBALROOT\\Device\\HarddiskVolumeShadowCopy7"], 0]
    assert "  0x2" in scenes["broken"]["calls"]


def test_a_writers_document_is_read_by_vss(scenes: dict[str, Found]) -> None:
    (found,) = scenes["document"]["result"]
    files = {"path": "%SystemDrive%\\lab\\data", "spec": "*.mdf", "recursive": True}
    assert found["components"] == ["whole", "whole\\part", "up\\needy"]
    assert (found["method"], found["takes_part"], found["service"]) == (
        "STOP_RESTORE_START",
        "always",
        "LabService",
    )
    assert (found["instructions"], found["reboot"], found["excluded"]) == ("", True, [files])
    assert found["alternate_locations"] == [{"files": files, "to": ""}]


FAILING = (
    "providers: CoCreateInstance",
    "providers: QueryProviders",
    "providers: Next",
    "storage: CoCreateInstance",
    "storage: GetProviderMgmtInterface",
    "storage: QueryDiffAreas of all",
    "storage: Next",
    "storage: QueryDiffAreas",
    "resize",
    "least",
    "ask for protection",
    "protect",
    "clear",
    "delete unused",
)


@pytest.mark.parametrize("name", FAILING)
def test_each_call_that_is_denied_says_so(scenes: dict[str, Found], name: str) -> None:
    assert (scenes[name]["error"], scenes[name]["code"]) == ("SnapshotPermissionError", DENIED)


COPIES = ("Query", "Next", "ExposeSnapshot", "UnexposeSnapshot", "DeleteSnapshots")


@pytest.mark.parametrize("name", COPIES)
def test_a_call_about_a_shadow_copy_that_failed_can_be_made_again(
    scenes: dict[str, Found], name: str
) -> None:
    assert scenes[f"shadow copies: {name}"]["result"] == f"{DENIED:#x}, 0 left"


def test_nothing_is_left_after_any_of_it(run: Found, scenes: dict[str, Found]) -> None:
    left = {
        name: {what: count for what, count in scene["left"].items() if count}
        for name, scene in scenes.items()
    }
    assert {name: what for name, what in left.items() if what} == {}
    first, second = run["handles"]
    assert run["seen"] >= 3, "open files are seen"
    assert second == first
    assert run["threads"] == [1, 1]


def test_every_scene_is_judged(scenes: dict[str, Found]) -> None:
    own = {"writers", "providers", "storage", "protection", "no server", "too little", "too much", "full"}
    own |= {"old storage", "continued", "placed", "revert hangs", "broken", "document"}
    own |= {f"reverted{how}" for how in ("", ", in use", ", dismounted", ", blocked")}
    assert own | set(FAILING) | {f"shadow copies: {name}" for name in COPIES} == set(scenes)
