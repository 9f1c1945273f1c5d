"""Every slot of every interface of the binding, called by the real Windows Python through the real ABI.

What is called is a library of classes that are generated from mingw-w64's headers and compiled by its C++
compiler: each method writes down its name and every argument, and gives values of its own.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import mirror
import requirements
from vsssnap._win32._ffi import ffi
from wine import windows
from wine_vss import VssPython

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1000)]

HERE = Path(__file__).parent / "wine_mirror"
VOID = ("CoUninitialize", "CoTaskMemFree", "SysFreeString", "VssFreeSnapshotPropertiesInternal")


@pytest.fixture(scope="module")
def headers() -> mirror.Headers:
    requirements.require_lab("x86_64-w64-mingw32-g++", root=False)
    return mirror.Headers.read()


@pytest.fixture(scope="module")
def run(headers: mirror.Headers, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of calling all slots."""
    folder = tmp_path_factory.mktemp("mirror")
    python = VssPython(folder)
    source, plan = folder / "mirror.cpp", folder / "headers.json"
    source.write_text(mirror.source(headers, functions_of_the_binding()))
    facts = {"unions": sorted(headers.unions), "functions": functions_of_the_binding()}
    plan.write_text(json.dumps(dataclasses.asdict(headers) | facts))
    python.build("vssapi.dll", source)
    try:
        done = python.run(windows(HERE / "calls.py"), windows(plan))
    finally:
        python.wine.stop()
    assert not done.returncode, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def functions_of_the_binding() -> list[str]:
    typedefs, _, _ = ffi.list_types()
    tables = [ffi.typeof(name).fields for name in typedefs if name.endswith("_FUNCTIONS")]
    return [name for fields in tables for name, _ in fields]


def slots_of_the_binding() -> dict[str, list[str]]:
    typedefs, _, _ = ffi.list_types()
    tables = {
        name.removesuffix("Vtbl"): ffi.typeof(name).fields for name in typedefs if name.endswith("Vtbl")
    }
    found = {interface: [name for name, _ in fields] for interface, fields in tables.items()}
    return {**found, mirror.TWO_VTABLES: found["IVssWriterComponents"] + found["IUnknown"]}


def test_every_slot_of_the_binding_is_called(run: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    slots = slots_of_the_binding()
    assert run["called"] == slots
    called, wanted = sum(map(len, run["called"].values())), sum(map(len, slots.values()))
    functions = len(functions_of_the_binding())
    counted = f"{called} of {wanted} slots of {len(slots)} interfaces, {functions} functions"
    with capsys.disabled():
        print(f"\n{counted}, {mirror.ROUNDS} times each")  # noqa: T201 - the count is for people


def test_what_is_passed_given_and_returned_arrives_whole(run: dict[str, Any]) -> None:
    assert run["wrong"] == []


def test_a_difference_in_any_slot_would_be_seen(run: dict[str, Any]) -> None:
    """Each returns a value of its own, which is another in another round."""
    seen = Counter(line.split(",")[0] for line in run["seen"] if ", what it returned " in line)
    assert sum(seen.values()) == sum(map(len, run["called"].values()))
    functions = [name for name in functions_of_the_binding() if name not in VOID]
    assert [line.split()[0] for line in run["seen"] if "." not in line.split()[0]] == functions


def test_no_string_and_no_structure_is_left(run: dict[str, Any]) -> None:
    assert run["watched"], "COM's memory is seen"
    assert run["left"] == 0


def test_two_truth_values_of_a_call_differ_in_some_round(headers: mirror.Headers) -> None:
    compared = 0
    for interface, methods in headers.interfaces.items():
        for _, method, types in methods:
            places = [f"{interface}.{method}.{n}" for n, one in enumerate(types) if one == "boolean"]
            patterns = [tuple(mirror.flag(place, turn) for turn in range(mirror.ROUNDS)) for place in places]
            assert len(set(patterns)) == len(patterns), (interface, method)
            compared += len(patterns) > 1
    assert compared >= 5, "SetBackupState has three of them"
