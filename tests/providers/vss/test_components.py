"""Which components are named, taken with others, or left out.

The example and the rules are those of "Working with Selectability for Backup" and "Logical Pathing of
Components" in the Windows SDK documentation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from uuid import UUID

import pytest

from vsssnap._win32.constants import ComponentType
from vsssnap._win32.writer_metadata import Component, Dependency, FileSet, WriterMetadata
from vsssnap.errors import SnapshotError, UsageError
from vsssnap.providers.vss.components import Choice, full_path
from vsssnap.vss import ComponentSelection, ComponentSelector

MY_WRITER = UUID(int=1)
C, D = "\\\\?\\Volume{c}\\", "\\\\?\\Volume{d}\\"

# Name, logical path, selectable: the table of both pages.
EXAMPLE = (
    ("Executables", "", False),
    ("ConfigFiles", "Executables", False),
    ("LicenseInfo", "", True),
    ("Security", "", True),
    ("UserInfo", "Security", False),
    ("Certificates", "Security", False),
    ("writerData", "", True),
    ("Set1", "writerData", False),
    ("Jan", "writerData\\Set1", False),
    ("Dec", "writerData\\Set1", False),
    ("Set2", "writerData", False),
    ("Jan", "writerData\\Set2", False),
    ("Dec", "writerData\\Set2", False),
    ("Query", "writerData\\QueryLogs", False),
    ("Usage", "writerData", True),
    ("Jan", "writerData\\Usage", False),
    ("Dec", "writerData\\Usage", False),
)


def component(
    name: str,
    path: str = "",
    selectable: bool = True,
    *,
    on: str = C,
    needs: Iterable[tuple[UUID, str, str]] = (),
) -> Component:
    return Component(
        kind=ComponentType.VSS_CT_FILEGROUP,
        logical_path=path,
        name=name,
        selectable=selectable,
        files=(FileSet(path=on),),
        dependencies=tuple(Dependency(writer_id=w, logical_path=p, name=n) for w, p, n in needs),
    )


def writer(name: str, *components: Component, number: int = 1) -> WriterMetadata:
    return WriterMetadata(
        name=name,
        writer_id=UUID(int=number),
        instance_id=UUID(int=number + 1000),
        document="<w/>",
        components=components,
    )


def choose(
    *writers: WriterMetadata, selection: ComponentSelection | None = None, inside: tuple[str, ...] = (C,)
) -> Choice:
    return Choice(
        writers,
        selection or ComponentSelection(),
        volumes_of=lambda known: {files.path for files in known.files},
        inside=inside,
        shown=lambda volume: {C: "C:", D: "D:"}.get(volume, volume),
    )


def states(choice: Choice) -> dict[str, str]:
    return {full_path(one.component): one.state for one in choice.candidates}


def named(choice: Choice) -> list[str]:
    return [full_path(one.component) for one in choice.explicit]


def example(*, elsewhere: str = "") -> WriterMetadata:
    """The example, one component of which may lie on another volume."""
    rows = [(row, "\\".join(filter(None, (row[1], row[0])))) for row in EXAMPLE]
    return writer("MyWriter", *(component(*row, on=D if path == elsewhere else C) for row, path in rows))


def select(*paths: str, exclude: tuple[str, ...] = ()) -> ComponentSelection:
    return ComponentSelection(
        include=[ComponentSelector(writer="mywriter", path=path) for path in paths] or None,
        exclude=[ComponentSelector(writer=MY_WRITER, path=path) for path in exclude],
    )


def test_everything_is_named_once_and_sets_by_what_stands_for_them() -> None:
    choice = choose(example())
    assert named(choice) == [
        "Executables",
        "Executables\\ConfigFiles",  # "will have to be explicitly included": its parent cannot be chosen
        "LicenseInfo",
        "Security",
        "writerData",
    ]
    assert {path for path, state in states(choice).items() if state == "implicit"} == {
        full_path(component(*row)) for row in EXAMPLE if row[1].startswith(("Security", "writerData"))
    }


def test_a_part_that_can_be_chosen_is_chosen_without_its_whole() -> None:
    choice = choose(example(), selection=select("writerData\\Usage"))
    assert named(choice) == ["Executables", "Executables\\ConfigFiles", "writerData\\Usage"]
    found = states(choice)
    assert found["writerData\\Usage\\Jan"] == "implicit"
    assert found["writerData"] == found["writerData\\Set1"] == found["writerData\\Set1\\Jan"] == "left out"
    assert found["LicenseInfo"] == "left out"


def test_a_whole_takes_its_parts_even_if_they_are_named_too() -> None:
    choice = choose(example(), selection=select("writerData\\Usage", "WRITERDATA"))
    assert named(choice)[-1] == "writerData"
    assert states(choice)["writerData\\Usage"] == "implicit"


def test_what_cannot_be_chosen_by_itself_names_its_whole() -> None:
    with pytest.raises(UsageError, match=r"cannot be chosen by itself.*include 'Security'"):
        choose(example(), selection=select("Security\\UserInfo"))


def test_what_is_not_there_is_told_with_what_is() -> None:
    with pytest.raises(UsageError, match=r"no component 'Nothing'.*LicenseInfo"):
        choose(example(), selection=select("Nothing"))
    with pytest.raises(UsageError, match=r"no VSS writer 'Other'.*MyWriter"):
        choose(example(), selection=ComponentSelection(include=[ComponentSelector(writer="Other")]))


def test_a_part_that_is_excluded_takes_its_whole_with_it() -> None:
    choice = choose(example(), selection=select(exclude=("writerData\\Set1\\Jan",)))
    found = states(choice)
    assert found["writerData"] == found["writerData\\Set1"] == "left out"
    assert named(choice)[-1] == "writerData\\Usage", "which can still be chosen by itself"
    reasons = {full_path(one.component): one.why_not for one in choice.candidates}
    assert reasons["writerData"] == "writerData\\Set1\\Jan is a part of it, and it is excluded"


def test_a_part_that_lies_elsewhere_takes_its_whole_with_it() -> None:
    choice = choose(example(elsewhere="Security\\UserInfo"))
    assert "Security" not in named(choice)
    assert "Security" in named(choose(example(elsewhere="Security\\UserInfo"), inside=(C, D)))


def test_a_chosen_one_that_lies_elsewhere_is_an_error_that_names_the_volume() -> None:
    with pytest.raises(SnapshotError, match="UNSELECTED_VOLUME") as caught:
        choose(example(elsewhere="Security\\UserInfo"), selection=select("Security"))
    assert caught.value.code == 0x8004232A
    assert "D:" in caught.value.__notes__[0]


def test_a_volume_that_is_not_there_is_elsewhere() -> None:
    with pytest.raises(SnapshotError, match="no component"):
        choose(writer("W", component("x", on="")))


def test_an_excluded_writer_is_left_out_and_the_others_are_not() -> None:
    selection = ComponentSelection(exclude=[ComponentSelector(writer="A")])
    both = (writer("A", component("x")), writer("B", component("y"), number=2))
    assert named(choose(*both, selection=selection)) == ["y"]


@pytest.mark.parametrize("by", ["name", "class", "instance", "text"])
def test_a_writer_is_named_in_four_ways(by: str) -> None:
    spellings: dict[str, str | UUID] = {
        "name": "mYwRITER",
        "class": MY_WRITER,
        "instance": UUID(int=1001),
        "text": str(MY_WRITER),
    }
    selection = ComponentSelection(include=[ComponentSelector(writer=spellings[by], path="LicenseInfo")])
    other = writer("Other", component("x"), number=2)
    assert named(choose(example(), other, selection=selection))[-1] == "LicenseInfo"


# Dependencies.


def test_what_a_component_needs_comes_with_it_and_what_that_needs() -> None:
    a = writer("A", component("a", needs=[(UUID(int=2), "", "b")]))
    b = writer("B", component("b", needs=[(UUID(int=3), "top", "c")]), component("b2"), number=2)
    c = writer("C", component("top"), component("c", "top", selectable=False), number=3)
    selection = ComponentSelection(include=[ComponentSelector(writer="A")])
    choice = choose(a, b, c, selection=selection)
    assert named(choice) == ["a", "b", "top"], "c itself cannot be chosen: what stands for it is"
    assert states(choice)["b2"] == "left out"
    assert choice.notes == []


def test_components_that_need_each_other_are_no_endless_chain() -> None:
    a = writer("A", component("a", needs=[(UUID(int=2), "", "b")]))
    b = writer("B", component("b", needs=[(UUID(int=1), "", "a")]), number=2)
    selection = ComponentSelection(include=[ComponentSelector(writer="A")])
    assert named(choose(a, b, selection=selection)) == ["a", "b"]


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (writer("B", component("b", on=D), number=2), "files on D:"),
        (writer("B", component("x"), number=2), "not on this machine"),
    ],
)
def test_what_is_needed_and_cannot_be_had_is_noted(other: WriterMetadata, why: str) -> None:
    a = writer("A", component("a", needs=[(UUID(int=2), "", "b")]))
    choice = choose(a, other, selection=ComponentSelection(include=[ComponentSelector(writer="A")]))
    assert named(choice) == ["a"]
    (note,) = choice.notes
    assert "A: a depends on b" in note
    assert why in note


def test_the_document_says_what_became_of_each() -> None:
    found = json.loads(choose(example(elsewhere="LicenseInfo")).document())
    assert len(found) == len(EXAMPLE)
    (one,) = (entry for entry in found if entry["path"] == "LicenseInfo")
    assert one == {
        "writer": "MyWriter",
        "writer_id": str(MY_WRITER),
        "instance_id": str(UUID(int=1001)),
        "path": "LicenseInfo",
        "state": "left out",
        "reason": "it has files on D:",
    }


@pytest.mark.parametrize(
    "arguments",
    [
        {"include": "A"},
        {"include": ()},
        {"include": ["A"]},
        {"exclude": None},
        {"kind": "full"},
    ],
)
def test_a_selection_that_is_wrong_in_itself_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        ComponentSelection(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [{"writer": ""}, {"writer": 3}, {"writer": "A", "path": None}])
def test_a_selector_that_is_wrong_in_itself_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        ComponentSelector(**arguments)  # type: ignore[arg-type]
