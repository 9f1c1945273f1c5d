"""Which components are backed up, and which of them a requester names.

A writer orders its components by logical paths, as folders are.  One that a requester may choose
("selectable") stands for all below it, its *component set*: the set is taken whole, by naming that
component alone.  So a component is

* *explicit*: named by AddComponent, because nothing above it stands for it;
* *implicit*: taken because one above it is explicit, and never named;
* left out.

What nobody can choose and nothing above it stands for belongs to every backup of its writer.

Sources: "Working with Selectability for Backup", "Logical Pathing of Components", the page of
IVssBackupComponents::AddComponent; Windows SDK documentation.  On one point they disagree (whether a
component that cannot be chosen stands for those below it): it does not, as two of the three say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vsssnap._win32.failures import error_for
from vsssnap._win32.hresult import HResult
from vsssnap.errors import SnapshotError, UsageError
from vsssnap.providers.vss.writers import as_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from vsssnap._win32.restore_components import SavedComponent
    from vsssnap._win32.writer_metadata import Component, Dependency, WriterMetadata
    from vsssnap.providers.vss.options import ComponentSelection, ComponentSelector


def full_path(component: Component | Dependency | SavedComponent) -> str:
    """Logical path and name, as people write it."""
    return "\\".join(filter(None, (component.logical_path.strip("\\"), component.name)))


@dataclass(eq=False, slots=True)
class Candidate:
    """A component that may be backed up.

    Attributes:
        writer: Whose it is.
        component: What its writer says of it.
        key: What it is compared by.
        volumes: GUID paths of the volumes that its files lie on; "" stands for one that is not there.
        above: The components above it, the nearest first.
        why_not: Why it is left out, or "".
        elsewhere: Whether that is because it has files outside the snapshot.
        state: ``"explicit"``, ``"implicit"`` or ``"left out"``.
    """

    writer: WriterMetadata
    component: Component
    key: str
    volumes: frozenset[str]
    above: list[Candidate] = field(default_factory=list)
    why_not: str = ""
    elsewhere: bool = False
    state: str = "left out"

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.writer.name}: {full_path(self.component)}"

    @property
    def sets(self) -> list[Candidate]:
        """The components above it that stand for it, the nearest first."""
        return [one for one in self.above if one.component.selectable]

    @property
    def required(self) -> bool:
        """Whether it belongs to every backup of its writer."""
        return not self.component.selectable and not self.sets


class Choice:
    """The components of some writers, and what becomes of each.

    Attributes:
        candidates: All of them.
        notes: What a reader of the backup should know, a sentence each.
    """

    def __init__(
        self,
        writers: Iterable[WriterMetadata],
        selection: ComponentSelection,
        *,
        volumes_of: Callable[[Component], Iterable[str]],
        inside: Iterable[str],
        shown: Callable[[str], str] = str,
    ) -> None:
        """Choose.

        Args:
            writers: With their components.
            selection: What is wanted.
            volumes_of: The volumes of a component's files; "" for one that cannot be found.
            inside: The volumes of the snapshot.
            shown: A volume as people know it.

        Raises:
            UsageError: something that is named is not there, or cannot be chosen by itself.
            SnapshotError: something that is named lies elsewhere, or nothing is left.
        """
        self.notes: list[str] = []
        self._selection = selection
        self.candidates = [
            Candidate(writer, one, full_path(one).casefold(), frozenset(volumes_of(one)))
            for writer in writers
            for one in writer.components
        ]
        self._order()
        self._leave_out(frozenset(inside), shown)
        roots = self._wanted()
        self._spread(roots)
        while more := self._needed():
            roots |= more
            self._spread(roots)
        for selector in selection.include or ():
            if selector.options and not any(self._names(selector, one) for one in self.explicit):
                raise UsageError(
                    f"{selector.writer}: {selector.path!r} is a part of what is included",
                    hint="VSS takes options for what contains it: pass them with that",
                )
        if not self.explicit:
            raise SnapshotError(
                "no component of a writer lies on these volumes alone",
                hint="take all volumes that the writers' files lie on, or back up whole volumes",
            )

    @property
    def explicit(self) -> list[Candidate]:
        """What is named to VSS, in the order of the writers."""
        return [one for one in self.candidates if one.state == "explicit"]

    def options_of(self, explicit: Candidate) -> str:
        """What the writer of a component is to know: of the last selector that says something."""
        said = [
            one.options for one in self._selection.include or () if one.options and self._names(one, explicit)
        ]
        return said[-1] if said else ""

    def _names(self, selector: ComponentSelector, one: Candidate) -> bool:
        return any(one is known for known in self._matching(selector))

    def all_volumes(self, explicit: Candidate) -> frozenset[str]:
        """The volumes of a component and of all that it stands for."""
        return explicit.volumes.union(*(one.volumes for one in self.candidates if explicit in one.sets))

    def document(self) -> bytes:
        """What was chosen and why not, for whoever restores it."""
        return json.dumps(
            [
                {
                    "writer": one.writer.name,
                    "writer_id": str(one.writer.writer_id),
                    "instance_id": str(one.writer.instance_id),
                    "path": full_path(one.component),
                    "state": one.state,
                    **({"reason": one.why_not} if one.why_not else {}),
                }
                for one in self.candidates
            ],
            indent=1,
        ).encode()

    def _order(self) -> None:
        for instance in {one.writer.instance_id for one in self.candidates}:
            own = [one for one in self.candidates if one.writer.instance_id == instance]
            known = {one.key: one for one in own}
            for one in own:
                parts = one.key.split("\\")
                paths = ("\\".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))
                one.above = [known[path] for path in paths if path in known]

    def _leave_out(self, inside: frozenset[str], shown: Callable[[str], str]) -> None:
        for selector in self._selection.exclude:
            for one in self._matching(selector):
                one.why_not = "it is excluded"
        for one in self.candidates:
            if elsewhere := sorted(one.volumes - inside):
                where = ", ".join(
                    shown(volume) if volume else "a volume that is not there" for volume in elsewhere
                )
                if not one.why_not:
                    one.why_not, one.elsewhere = f"it has files on {where}", True
        for one in [known for known in self.candidates if known.why_not]:
            for parent in one.above:  # a set is taken whole or not at all
                if not parent.why_not:
                    parent.why_not = f"{full_path(one.component)} is a part of it, and {one.why_not}"
                    parent.elsewhere = one.elsewhere

    def _matching(self, selector: ComponentSelector) -> list[Candidate]:
        """The components that a selector names, and those below them; at least one."""
        wanted, value = str(selector.writer).casefold(), as_id(selector.writer)
        own = [
            one
            for one in self.candidates
            if one.writer.name.casefold() == wanted
            or (value is not None and value in (one.writer.writer_id, one.writer.instance_id))
        ]
        if not own:
            names = sorted({one.writer.name for one in self.candidates})
            raise UsageError(
                f"there is no VSS writer {selector.writer!r} with components",
                hint=f"this machine has {', '.join(names) or 'none'}",
            )
        path = selector.path.strip("\\").casefold()
        found = [one for one in own if not path or one.key == path or one.key.startswith(path + "\\")]
        if not found:
            known = ", ".join(full_path(one.component) for one in own)
            raise UsageError(
                f"{own[0].writer.name} has no component {selector.path!r}", hint=f"it has {known}"
            )
        return found

    def _wanted(self) -> set[Candidate]:
        """What is to be named, before what stands for what is looked at."""
        chosen = [one for one in self.candidates if not one.why_not]
        if self._selection.include is None:
            return {one for one in chosen if one.component.selectable or one.required}
        roots: set[Candidate] = set()
        for selector in self._selection.include:
            found = self._matching(selector)
            able = {one for one in found if not one.why_not and (one.component.selectable or one.required)}
            if not able:
                raise self._unable(found)
            roots |= able
        taking_part = {one.writer.instance_id for one in roots}
        return roots | {one for one in chosen if one.required and one.writer.instance_id in taking_part}

    @staticmethod
    def _unable(found: Sequence[Candidate]) -> SnapshotError | UsageError:
        first = found[0]
        if first.elsewhere:
            error = error_for(HResult.VSS_E_UNSELECTED_VOLUME, "AddComponent", first.name)
            error.add_note(first.why_not)
            return error
        if first.why_not:
            return UsageError(f"{first.name} cannot be included: {first.why_not}")
        return UsageError(
            f"{first.name} cannot be chosen by itself", hint=f"include {full_path(first.sets[0].component)!r}"
        )

    def _spread(self, roots: set[Candidate]) -> None:
        """Tell explicit from implicit."""
        for one in self.candidates:
            if any(parent in roots for parent in one.sets):
                one.state = "implicit"
            elif one in roots:
                one.state = "explicit"

    def _needed(self) -> set[Candidate]:
        """What chosen components depend on and is not chosen yet; it is noted if it cannot be."""
        taken = [one for one in self.candidates if one.state != "left out"]
        found: set[Candidate] = set()
        for one in taken:
            for dependency in one.component.dependencies:
                key = full_path(dependency).casefold()
                there = [
                    known
                    for known in self.candidates
                    if known.writer.writer_id == dependency.writer_id and known.key == key
                ]
                if any(known.state != "left out" for known in there):
                    continue
                able = [
                    root
                    for known in there
                    for root in (known, *known.sets)
                    if not root.why_not and (root.component.selectable or root.required)
                ]
                if able:
                    found.add(able[0])
                    continue
                why = there[0].why_not if there else "it is not on this machine"
                note = f"{one.name} depends on {full_path(dependency)}, which is not in the backup: {why}."
                if note not in self.notes:
                    self.notes.append(note)
        taking_part = {one.writer.instance_id for one in found}
        return found | {
            one
            for one in self.candidates
            if one.required and not one.why_not and one.writer.instance_id in taking_part
        }
