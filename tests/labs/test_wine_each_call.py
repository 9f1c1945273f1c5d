"""Each call that VSS gets is refused, wherever it is made: what then is left, and what the caller is told.

The real Windows Python, run by Wine, plays scenes against the strict vssapi.dll; every call of each scene is
refused once, and once from then on, with E_ACCESSDENIED, which nothing tries again.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from wine_vss import played

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1000)]

DENIED, NOT_RESPONDING = 0x80070005, 0x80042319

Row = dict[str, Any]

# A writer's document that cannot be read is logged and left out; a backup of components then has none.
DOCUMENT = {"GetWriterMetadata", "GetIdentity", "IVssExamineWriterMetadata::SaveAsXML", "GetFileCounts"}
COMPONENTS = {
    "GetComponent",
    "GetComponentInfo",
    "GetFile",
    "GetDatabaseFile",
    "GetDatabaseLogFile",
    "GetRecursive",
    "GetPath",
    "GetFilespec",
    "GetAlternateLocation",
    "GetDependency",
    "GetWriterId",
    "GetLogicalPath",
    "GetComponentName",
}
# A writer that cannot be asked is reported as failed; whether that is an error, the caller decides.
STATUS = {"GetWriterStatusEx"}
# What is freed is freed.
FREED = {"FreeWriterMetadata", "FreeWriterStatus"}
# The image is made by then.
END = {"SetBackupSucceeded", "BackupComplete", "GatherWriterStatus", "GetWriterStatusCount"}

QUIET = {
    "backup": DOCUMENT | STATUS | FREED | END,
    "lasting": DOCUMENT | STATUS | FREED | END,
    "without writers": set(),
    "writers": STATUS | FREED,
    "components": DOCUMENT | COMPONENTS | FREED,
    "looked after": set(),
    "restore": DOCUMENT - {"GetFileCounts"} | STATUS | FREED,
    "managed": {"QueryDiffAreasForVolume"},  # of one volume among all
}
"""Calls whose refusal is, in some place, no error of the whole; by scene."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """What came of each scene as it is, and with each of its calls refused."""
    made: list[Row] = played("each_call.py", tmp_path_factory.mktemp("windows"))["rows"]
    return made


def test_each_scene_goes_well_by_itself(rows: list[Row]) -> None:
    well = [row for row in rows if not row["call"]]
    assert {row["scene"] for row in well} == set(QUIET)
    assert [row for row in well if row["error"]] == []


def test_every_call_was_refused_wherever_it_is_made(rows: list[Row]) -> None:
    refused = [row for row in rows if row["call"]]
    assert len(refused) > 700
    places = {(row["scene"], row["call"], row["number"]) for row in refused}
    assert 2 * len(places) == len(refused)


def test_nothing_is_left_by_any_of_it(rows: list[Row]) -> None:
    for row in rows:
        left = {what: count for what, count in row["left"].items() if count}
        kept = row["error"] == "" if row["scene"] == "lasting" else row["error"] != ""
        if row["scene"] in ("lasting", "looked after") and kept:
            assert left.pop("shadow copies") == 1, "it lasts, or could not be deleted"
        if row["call"] in ("AbortBackup 0", "PostRestore 0"):
            assert left.pop("forbidden", 1) == 1, "the fault keeps the library from being told"
        assert left == {}, row


def test_each_refusal_is_told_or_stops_nobody(rows: list[Row]) -> None:
    quiet: dict[str, set[str]] = {scene: set() for scene in QUIET}
    errors: dict[tuple[str, int | None], set[str]] = defaultdict(set)
    for row in rows:
        if row["call"]:
            name = row["call"].rpartition(" ")[0]
            if row["error"]:
                errors[row["error"], row["code"]].add(name)
            else:
                quiet[row["scene"]].add(name)
    assert quiet == QUIET
    assert errors.pop(("SnapshotError", None)) == DOCUMENT | COMPONENTS, "no component is left to back up"
    assert errors.pop(("WriterFailedError", NOT_RESPONDING)) == STATUS
    assert errors.pop(("WriterFailedError", DENIED)) == STATUS, "of a restore"
    assert set(errors) == {("SnapshotPermissionError", DENIED)}


def test_a_writer_that_can_never_be_asked_fails_a_backup_that_needs_it(rows: list[Row]) -> None:
    """It is asked before the instant, after it, and at the end; the other writer takes no part."""
    found = {
        row["number"]: row["error"]
        for row in rows
        if row["scene"] == "backup" and row["call"] == "GetWriterStatusEx 0" and row["times"] > 1
    }
    assert found == {n: "WriterFailedError" if n < 3 else "" for n in range(6)}
