"""What is said, to whom, and that it cannot command a terminal."""

from __future__ import annotations

import enum
import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from vsssnap import Consistency, Extent, ExtentKind
from vsssnap.cli.output import Output, describe_error, facts_of, plain, safe
from vsssnap.errors import DeviceReadError, ProviderUnavailableError, SnapshotBusyError
from vsssnap.imaging.reports import Progress


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("bell\x07", "bell\\x07"),
        ("right\u202eleft", "right\\u202eleft"),
        ("broken\udcff", "broken\\udcff"),
        ("\x9b31m", "\\x9b31m"),
        ("Größe 数", "Größe 数"),
    ],
)
def test_names_from_images_cannot_command_a_terminal(text: str, shown: str) -> None:
    assert safe(text) == shown


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "json_value"),
    [
        (Consistency.FILESYSTEM, "filesystem"),
        (ExtentKind.HOLE, "hole"),
        (Colour.RED, "red"),
        (datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02T00:00:00+00:00"),
        (b"abc", {"bytes": 3}),
        (Path("/srv"), str(Path("/srv"))),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Extent(1, 2), {"offset": 1, "length": 2, "kind": "data"}),
        ({"a": (1, None)}, {"a": [1, None]}),
        ((n for n in (1, 2)), [1, 2]),
        (1.5, 1.5),
        (True, True),
    ],
)
def test_values_become_json(value: object, json_value: object) -> None:
    assert plain(value) == json_value
    json.dumps(plain(json_value))


def test_what_is_unknown_becomes_text() -> None:
    assert plain(3j) == "3j"


def test_error_as_json_has_its_facts() -> None:
    error = DeviceReadError("cannot read", offset=5, length=2, call="pread", code=5, hint="look")
    error.add_note("a note")
    found = describe_error(error, 15)
    assert (found["class"], found["message"], found["exit_code"]) == ("DeviceReadError", "cannot read", 15)
    assert (found["call"], found["code"], found["hint"]) == ("pread", 5, "look")
    assert (found["offset"], found["length"], found["retryable"]) == (5, 2, False)
    assert found["notes"] == ["a note"]
    json.dumps(found)
    described = describe_error(ProviderUnavailableError("no", reasons={"cow": "is no CowVolume"}), 3)
    assert described["reasons"] == {"cow": "is no CowVolume"}
    assert describe_error(SnapshotBusyError("busy"), 6)["retryable"] is True
    assert describe_error(KeyError("x"), 70) == {
        "class": "KeyError",
        "message": "'x'",
        "exit_code": 70,
        "notes": [],
    }


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        (Progress(0, 1 << 30, 0.0, "copy"), "0 B of 1.00 GiB"),
        (
            Progress(1 << 29, 1 << 30, float(1 << 29), "copy", 1 << 29, 1.2),
            "512 MiB of 1.00 GiB, 512 MiB/s read, 0:01 left",
        ),
        (
            Progress(0, 7200 << 20, float(1 << 20), "copy", 0, 7200.0),
            "0 B of 7.03 GiB, 1.00 MiB/s read, 2:00:00 left",
        ),
        (Progress(1 << 40, 2 << 40, 0.0, "copy", 0, 3.0), "1.00 TiB of 2.00 TiB, 0:03 left"),
    ],
)
def test_bar_tells_amount_rate_and_time_left(seen: Progress, text: str) -> None:
    assert facts_of(seen) == text


# Where what goes.


def test_result_is_said_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output("save")
    out.say("done")
    out.warn("be careful")
    out.fail(KeyError("x"), 70)
    said = capsys.readouterr()
    assert said.out == "done\n"
    assert said.err == "warning: be careful\nvsssnap: 'x'\n"


def test_result_goes_aside_when_an_image_takes_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output("save")
    out.taken = True
    out.say("done")
    assert capsys.readouterr() == ("", "done\n")


def test_quiet_says_warnings_and_errors_alone(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output("save", quiet=True)
    out.say("done")
    out.facts([("a", 1)])
    out.table([("a", "b")])
    out.warn("be careful")
    assert capsys.readouterr() == ("", "warning: be careful\n")


def test_json_is_one_document_with_the_warnings_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output("save", as_json=True)
    out.say("done")
    out.warn("be careful")
    out.document(True, {"images": []})
    said = capsys.readouterr()
    assert said.err == ""
    assert json.loads(said.out) == {
        "command": "save",
        "ok": True,
        "warnings": ["be careful"],
        "images": [],
    }


def test_json_of_a_failure_has_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    Output("save", as_json=True).fail(SnapshotBusyError("busy"), 6)
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["error"]["class"], found["error"]["exit_code"]) == (
        False,
        "SnapshotBusyError",
        6,
    )


def test_notes_follow_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    error = SnapshotBusyError("busy")
    error.add_note("tried for 600 s")
    Output("save").fail(error, 6)
    assert capsys.readouterr().err == "vsssnap: busy\n  tried for 600 s\n"


def test_facts_leave_out_what_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    Output("info").facts([("size", 5), ("device", ""), ("file system", None), ("zero", 0)])
    assert capsys.readouterr().out == "  size  5\n  zero  0\n"


def test_table_is_as_wide_as_it_must_be(capsys: pytest.CaptureFixture[str]) -> None:
    Output("providers").table([("cow", "usable", ""), ("reflink", "no", "because")])
    assert capsys.readouterr().out == "cow      usable\nreflink  no      because\n"
    Output("providers").table([])
    assert capsys.readouterr().out == ""


def test_progress_as_json_is_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    with Output("save", progress="json").progress("save x") as progress:
        progress(Progress(0, 10, 0.0, "copy"))
        progress(Progress(1, 10, 0.0, "copy"))  # too soon after the other
        progress(Progress(10, 10, 2.5, "done"))
    lines = [json.loads(line)["progress"] for line in capsys.readouterr().err.splitlines()]
    assert [(line["done"], line["state"]) for line in lines] == [(0, "copy"), (10, "done")]
    assert lines[0] == {"label": "save x", "state": "copy", "done": 0, "total": 10, "read": 0, "rate": 0}


def test_there_is_no_bar_but_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Output("save").progress("save x") as progress:
        progress(Progress(5, 10, 1.0, "copy"))
    assert capsys.readouterr() == ("", "")
