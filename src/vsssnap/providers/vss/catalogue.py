"""What writers have to back up, for whoever chooses from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap._deadline import Deadline
from vsssnap.providers.vss import existing, names
from vsssnap.providers.vss.components import full_path
from vsssnap.providers.vss.gathering import gathered
from vsssnap.providers.vss.management import run

if TYPE_CHECKING:
    from vsssnap._win32.dll import System
    from vsssnap._win32.writer_metadata import WriterMetadata

__all__ = ["WriterComponent", "list_components"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterComponent:
    """A component of a VSS writer: something that an application has to back up.

    Attributes:
        writer: The writer's name.
        writer_id: Its class id.
        instance_id: Its instance id.
        path: Logical path and name; what `ComponentSelector` takes.
        caption: What it is called for people, or "".
        selectable: Whether it can be chosen for a backup by itself.
        selectable_for_restore: Likewise for a restore.
        volumes: Where its files lie, as people know the volumes.
        files: Its files, with environment variables and wildcards in them.
    """

    writer: str
    writer_id: str
    instance_id: str
    path: str
    caption: str
    selectable: bool
    selectable_for_restore: bool
    volumes: tuple[str, ...]
    files: tuple[str, ...]


def list_components(*, timeout: float = 300.0) -> list[WriterComponent]:
    """The components of the VSS writers of this machine.

    A writer whose document cannot be read is left out, and the log says so.

    Args:
        timeout: Seconds for all of them.

    Raises:
        ProviderUnavailableError: VSS is not here.
        SnapshotPermissionError: the process is not elevated.
        SnapshotTimeoutError: a writer does not answer.
    """
    deadline = Deadline(timeout)
    found: list[WriterComponent] = []

    def ask(system: System) -> None:
        with gathered(system, deadline) as vss:
            writers = vss.writer_metadata(components=True)
        found.extend(_described(system, writers))

    run(ask, deadline, "list components of VSS writers")
    return found


def _described(system: System, writers: list[WriterMetadata]) -> list[WriterComponent]:
    volumes_of = names.component_volumes(system)
    return [
        WriterComponent(
            writer=writer.name,
            writer_id=str(writer.writer_id),
            instance_id=str(writer.instance_id),
            path=full_path(one),
            caption=one.caption,
            selectable=one.selectable,
            selectable_for_restore=one.selectable_for_restore,
            volumes=tuple(sorted(existing.shown(system, name) for name in volumes_of(one) if name)),
            files=tuple("\\".join(((f.alternate or f.path).rstrip("\\"), f.spec)) for f in one.files),
        )
        for writer in sorted(writers, key=lambda known: known.name.casefold())
        for one in writer.components
    ]
