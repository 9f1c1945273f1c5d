"""Every way in which VSS fails, in the real Windows Python run by Wine, against another program's code.

The vssapi.dll is our own, in C++, compiled against mingw-w64's headers; it keeps to the documentation, as
`testing.fake_vss` does, and shares nothing with it or with the binding.  All scenes run in one process,
twice, and after each it is counted what is left: objects, strings, shadow copies, and at the end handles
and threads.
"""

from __future__ import annotations

from typing import Any

import pytest

from wine_vss import played

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1000)]

DENIED, BAD_STATE, UNEXPECTED, VETO = 0x80070005, 0x80042301, 0x80042302, 0x80042306
HOLD_WRITES, IN_PROGRESS, MEMORY_OUT = 0x80042314, 0x80042316, 0x8007000E
RETRYABLE, NONRETRYABLE, CONTEXT = 0x800423F3, 0x800423F4, 0x8004231B

Found = dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What all scenes came to."""
    return played("failures.py", tmp_path_factory.mktemp("windows"))


@pytest.fixture(scope="module")
def scenes(run: Found) -> dict[str, Found]:
    found: dict[str, Found] = run["scenes"]
    return found


def called(scene: Found, name: str) -> int:
    return sum(call == name for call in scene["calls"])


# Name of the scene; the error and its code; how often requesters were made, a backup was aborted, completed.
ROWS = [
    ("all is well", "", None, 1, 0, 1),
    ("components", "", None, 1, 0, 1),
    ("without writers", "", None, 1, 0, 0),
    # Before StartSnapshotSet nothing is under way: Release alone.
    ("CreateVssBackupComponents", "SnapshotPermissionError", DENIED, 1, 0, 0),
    ("InitializeForBackup", "SnapshotPermissionError", DENIED, 1, 0, 0),
    ("SetContext", "ProviderUnavailableError", CONTEXT, 1, 0, 0),
    ("SetBackupState", "SnapshotPermissionError", DENIED, 1, 0, 0),
    ("GatherWriterMetadata 0", "SnapshotPermissionError", DENIED, 1, 0, 0),
    ("GatherWriterMetadata 1", "SnapshotPermissionError", DENIED, 1, 0, 0),
    ("GatherWriterMetadata 2", "SnapshotPermissionError", DENIED, 1, 0, 0),
    ("GetWriterMetadataCount", "SnapshotPermissionError", DENIED, 1, 0, 0),
    ("AddComponent", "SnapshotPermissionError", DENIED, 1, 0, 0),
    ("StartSnapshotSet", "SnapshotError", BAD_STATE, 1, 0, 0),
    ("busy for ever", "SnapshotBusyError", IN_PROGRESS, 1, 0, 0),
    ("busy twice", "", None, 1, 0, 1),
    ("gather hangs", "SnapshotTimeoutError", None, 1, 0, 0),
    ("gather is cancelled", "CancelledError", None, 1, 0, 0),
    # From there on AbortBackup, and never BackupComplete.
    ("IsVolumeSupported", "SnapshotError", MEMORY_OUT, 1, 1, 0),
    ("AddToSnapshotSet", "SnapshotError", MEMORY_OUT, 1, 1, 0),
    ("PrepareForBackup 0", "SnapshotError", MEMORY_OUT, 1, 1, 0),
    ("PrepareForBackup 1", "SnapshotError", MEMORY_OUT, 1, 1, 0),
    ("PrepareForBackup 2", "SnapshotError", MEMORY_OUT, 1, 1, 0),
    ("GatherWriterStatus 0", "SnapshotError", MEMORY_OUT, 1, 1, 0),
    ("GatherWriterStatus 1", "SnapshotError", MEMORY_OUT, 1, 1, 0),
    ("GatherWriterStatus 2", "SnapshotError", MEMORY_OUT, 1, 1, 0),
    ("GetWriterStatusCount", "SnapshotError", MEMORY_OUT, 1, 1, 0),
    ("DoSnapshotSet 0", "SnapshotError", MEMORY_OUT, 1, 1, 0),
    ("DoSnapshotSet 1", "SnapshotError", MEMORY_OUT, 1, 1, 0),
    ("DoSnapshotSet 2", "SnapshotError", MEMORY_OUT, 1, 1, 0),
    ("GetSnapshotProperties", "SnapshotError", MEMORY_OUT, 1, 1, 0),
    ("SaveAsXML", "SnapshotError", MEMORY_OUT, 1, 1, 0),
    ("prepare hangs", "SnapshotTimeoutError", None, 1, 1, 0),
    ("status hangs", "SnapshotTimeoutError", None, 1, 1, 0),
    ("instant hangs", "SnapshotTimeoutError", None, 1, 1, 0),
    ("instant ends late", "SnapshotTimeoutError", None, 1, 1, 0),
    ("instant is cancelled", "CancelledError", None, 1, 1, 0),
    ("writer fails at prepare", "WriterFailedError", NONRETRYABLE, 1, 1, 0),
    ("writer fails at freeze", "WriterFailedError", NONRETRYABLE, 1, 1, 0),
    ("body raises", "ZeroDivisionError", None, 1, 1, 0),
    # What passes is tried again, with a new object, three times at most.
    ("hold writes once", "", None, 2, 1, 1),
    ("hold writes for ever", "SnapshotBusyError", HOLD_WRITES, 4, 4, 0),
    ("veto once", "", None, 2, 1, 1),
    ("service hiccups", "SnapshotError", UNEXPECTED, 2, 0, 0),
    ("writer passes", "", None, 3, 2, 1),
    ("writer never passes", "WriterFailedError", RETRYABLE, 4, 4, 0),
    # The image is made, and not lost to what fails then.
    ("BackupComplete 0", "", None, 1, 1, 1),
    ("BackupComplete 1", "", None, 1, 1, 1),
    ("BackupComplete 2", "", None, 1, 1, 1),
    ("SetBackupSucceeded", "", None, 1, 1, 0),
    ("writer fails at the end", "", None, 1, 0, 1),
    # What is reported, and stops nobody.
    ("writer is reported", "", None, 1, 0, 1),
    ("another writer fails", "", None, 1, 0, 1),
    ("a writer's document", "", None, 1, 0, 1),
    ("a writer's text", "", None, 1, 0, 1),
    ("a writer's state", "", None, 1, 0, 1),
    # Without the components of its one writer there is nothing to back up.
    ("a component's facts", "SnapshotError", None, 1, 0, 0),
    ("a component's files", "SnapshotError", None, 1, 0, 0),
    # Lasting ones are deleted by a requester of its own if they were not taken whole.
    ("a lasting one not taken whole", "SnapshotError", MEMORY_OUT, 2, 1, 0),
    ("instant of a lasting one ends late", "SnapshotTimeoutError", None, 2, 1, 0),
]


@pytest.mark.parametrize(("name", "error", "code", "made", "aborted", "completed"), ROWS)
def test_each_failure_is_ended_as_it_has_to_be(
    scenes: dict[str, Found], name: str, error: str, code: int | None, made: int, aborted: int, completed: int
) -> None:
    scene = scenes[name]
    assert (scene["error"], scene["code"]) == (error, code)
    counts = [called(scene, f) for f in ("CreateVssBackupComponents", "AbortBackup", "BackupComplete")]
    assert counts == [made, aborted, completed], scene["calls"]


def test_nothing_is_left_after_any_of_it(run: Found, scenes: dict[str, Found]) -> None:
    left = {name: {k: v for k, v in scene["left"].items() if v} for name, scene in scenes.items()}
    # Two faults keep the library from being told: that it then complains is the fault's doing.
    assert left.pop("AbortBackup") == {"forbidden": 1}
    assert left.pop("restore PostRestore") == {"forbidden": 1}
    assert {name: what for name, what in left.items() if what} == {}
    assert len(left) > 75


def test_no_handle_and_no_thread_is_left_by_a_second_round(run: Found) -> None:
    first, second = run["handles"]
    assert run["seen"] >= 3, "open files are seen"
    assert second == first
    assert run["threads"] == [1, 1]


def test_a_busy_set_is_tried_again_on_the_same_object(scenes: dict[str, Found]) -> None:
    assert called(scenes["busy twice"], "StartSnapshotSet") == 3
    assert called(scenes["busy for ever"], "StartSnapshotSet") > 1


@pytest.mark.parametrize(
    "name",
    ["gather hangs", "prepare hangs", "status hangs", "instant hangs", "instant ends late", "restore hangs"],
)
def test_what_hangs_is_cancelled_and_drained_before_it_is_released(
    scenes: dict[str, Found], name: str
) -> None:
    assert called(scenes[name], "Cancel") == 1
    assert scenes[name]["left"]["forbidden"] == scenes[name]["left"]["busy"] == 0


def test_cancel_comes_through_long_before_the_timeout(scenes: dict[str, Found]) -> None:
    for name in ("gather is cancelled", "instant is cancelled"):  # as soon as it hangs
        assert scenes[name]["seconds"] < 100, "and not the 600 s of its timeout"


def test_an_abort_that_fails_is_a_note_on_the_first_error(scenes: dict[str, Found]) -> None:
    scene = scenes["AbortBackup"]
    assert scene["code"] == MEMORY_OUT
    assert any("VSS_E_UNEXPECTED" in note for note in scene["notes"])


def test_writers_are_judged_if_they_take_part(scenes: dict[str, Found]) -> None:
    reported = "FILESYSTEM [('Idle Writer', 'STABLE'), ('Lab Writer', 'FAILED_AT_FREEZE')]"
    assert scenes["writer is reported"]["result"] == reported
    assert scenes["another writer fails"]["result"] == "APPLICATION [('Lab Writer', 'STABLE')]"


def test_lasting_shadow_copies_are_kept_found_and_deleted(scenes: dict[str, Found]) -> None:
    for name in ("a lasting one", "a lasting one without writers"):
        assert (scenes[name]["error"], scenes[name]["result"]) == ("", "0 left")
    assert called(scenes["a lasting one without writers"], "AbortBackup") == 0
    assert called(scenes["a lasting one not taken whole"], "DeleteSnapshots") == 1


def test_a_set_that_is_not_deleted_whole_is_deleted_one_by_one(scenes: dict[str, Found]) -> None:
    scene = scenes["one that stays"]
    assert scene["result"] == f"{VETO:#x}"
    kinds = [line.strip() for line in scene["calls"] if line in ("  set", "  one")]
    assert kinds == ["set", "one", "set"]


def test_what_a_killed_process_left_is_purged_and_nothing_else(scenes: dict[str, Found]) -> None:
    other = "00000000-0000-0000-0000-000000000007"
    assert scenes["killed"]["error"] == ""
    assert scenes["killed"]["result"] == [[True, True], [False, False], 0, [True], [other]]


# Through the real calling convention.


def test_components_arrive_whole_and_are_chosen_by_the_rules(scenes: dict[str, Found]) -> None:
    files = ["%SystemDrive%\\lab\\data\\*.mdf"]
    assert scenes["list"]["result"] == [
        ["Lab Writer", "whole", True, files, ["C:\\"]],
        ["Lab Writer", "whole\\part", False, files, ["C:\\"]],
        ["Lab Writer", "up\\needy", True, files * 2, ["C:\\"]],
    ]
    writer = "11111111-2222-3333-4444-010203040506"
    for name in ("components", "chosen"):  # one is chosen, the other it depends on
        calls = scenes[name]["calls"]
        assert sorted(line for line in calls if " of " in line) == [
            f"  \\whole 2 of {writer}",
            f"  up\\needy 1 of {writer}",
        ]
        assert [line for line in calls if line.startswith("  select")] == ["  select 1, kind 5"]
        assert sorted(line for line in calls if line.endswith(" 1")) == ["  needy 1", "  whole 1"]


def test_what_could_not_be_read_is_told_as_failed(scenes: dict[str, Found]) -> None:
    calls = scenes["something cannot be read"]["calls"]
    assert [line for line in calls if line.endswith(" 0")] == ["  whole 0", "  needy 0"]
    assert called(scenes["something cannot be read"], "BackupComplete") == 1


def test_shadow_copies_are_exposed_and_taken_back(scenes: dict[str, Found]) -> None:
    assert scenes["exposed"]["result"] == [True, True, "X:", "X:", "old \u00e4"]
    calls = scenes["exposed"]["calls"]
    assert "   X: 0x100000" in calls
    assert "  \\data old \u00e4 0x200000" in calls
    assert called(scenes["exposed"], "UnexposeSnapshot") == 1


def test_a_restore_goes_through_its_steps(scenes: dict[str, Found]) -> None:
    scene = scenes["restore"]
    assert (scene["error"], scene["result"]) == ("", [["path\\part", False, True], ["whole", True, True]])
    assert [line for line in scene["calls"] if line != "released"] == [
        "CreateVssBackupComponents",
        "InitializeForRestore",
        "  <\u00fc \U0001f400/>, 7 units",
        "GatherWriterMetadata",
        "GetWriterMetadataCount",
        "GetWriterMetadata",
        "GetWriterMetadata",
        "GetWriterComponentsCount",
        "GetWriterComponents",
        "SetSelectedForRestore",
        "SetRestoreOptions",
        "  m\u00f6ve",
        "SetSelectedForRestore",
        "SetRestoreOptions",
        "  m\u00f6ve",
        "PreRestore",
        "GatherWriterStatus",
        "GetWriterStatusCount",
        "GetWriterStatusEx",
        "GetWriterStatusEx",
        "SetFileRestoreStatus",
        "  part 2",
        "SetFileRestoreStatus",
        "  whole 3",
        "PostRestore",
        "GatherWriterStatus",
        "GetWriterStatusCount",
        "GetWriterStatusEx",
        "GetWriterStatusEx",
    ]


RESTORES = [
    ("restore hangs", "SnapshotTimeoutError", None, 1),
    ("restore refused", "WriterFailedError", NONRETRYABLE, 1),
    ("restore ends badly", "WriterFailedError", NONRETRYABLE, 1),
    ("restore InitializeForRestore", "SnapshotPermissionError", DENIED, 0),
    ("restore GetWriterComponentsCount", "SnapshotPermissionError", DENIED, 0),
    ("restore GetWriterComponents", "SnapshotPermissionError", DENIED, 0),
    ("restore GetWriterInfo", "SnapshotPermissionError", DENIED, 0),
    ("restore GetComponentName", "SnapshotPermissionError", DENIED, 0),
    ("restore SetSelectedForRestore", "SnapshotPermissionError", DENIED, 0),
    ("restore SetRestoreOptions", "SnapshotPermissionError", DENIED, 0),
    ("restore PreRestore", "SnapshotPermissionError", DENIED, 0),
    ("restore PreRestore 1", "SnapshotPermissionError", DENIED, 1),
    ("restore SetFileRestoreStatus", "SnapshotPermissionError", DENIED, 1),
    ("restore PostRestore", "SnapshotPermissionError", DENIED, 1),
    ("restore PostRestore 1", "SnapshotPermissionError", DENIED, 1),
]


@pytest.mark.parametrize(("name", "error", "code", "ended"), RESTORES)
def test_a_restore_that_fails_is_ended_if_it_was_begun(
    scenes: dict[str, Found], name: str, error: str, code: int | None, ended: int
) -> None:
    assert (scenes[name]["error"], scenes[name]["code"]) == (error, code)
    assert called(scenes[name], "PostRestore") == ended


def test_every_scene_is_judged(scenes: dict[str, Found]) -> None:
    own = {"AbortBackup", "a lasting one", "a lasting one without writers", "one that stays", "killed"}
    own |= {"list", "chosen", "something cannot be read", "exposed", "restore"}
    assert {row[0] for row in ROWS} | {row[0] for row in RESTORES} | own == set(scenes)
