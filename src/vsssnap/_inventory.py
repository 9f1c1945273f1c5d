"""The snapshots that exist on this machine, whoever took them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vsssnap._deadline import Deadline
from vsssnap.errors import SnapshotPermissionError, VssSnapError
from vsssnap.providers import choice

if TYPE_CHECKING:
    from vsssnap.providers.base import SnapshotRecord

_log = logging.getLogger("vsssnap.snapshot")


def list_snapshots() -> list[SnapshotRecord]:
    """The snapshots on this machine that the installed providers can see.

    A provider that cannot be used here is left out; `vsssnap.providers.available` says why.  If this
    process may not see the snapshots of one, the log says so.
    """
    records, unseen = survey()
    for name, reason in unseen.items():
        _log.warning("provider %s: %s", name, reason)
    return records


def survey() -> tuple[list[SnapshotRecord], dict[str, str]]:
    """The snapshots that can be seen, and why those of which provider cannot be."""
    records: list[SnapshotRecord] = []
    unseen: dict[str, str] = {}
    for name, problem in choice.available().items():
        if not problem:
            try:
                records += choice.by_name(name).list()
            except SnapshotPermissionError as exc:
                unseen[name] = exc.message
    return records, unseen


def purge(*, timeout: float = 600.0) -> list[SnapshotRecord]:
    """Remove what killed runs of this library left: its snapshots whose process is gone.

    Persistent snapshots that were closed are no leftovers; `Snapshot.attach` with ``own=True`` removes one.

    Args:
        timeout: Seconds for all of them.

    Returns:
        What was removed.

    Raises:
        SnapshotError: one could not be removed; the others were.
    """
    deadline = Deadline(timeout)
    removed: list[SnapshotRecord] = []
    first: VssSnapError | None = None
    for record in list_snapshots():
        if not record.owned or record.owner_alive or record.kept:
            continue
        try:
            choice.by_name(record.provider).purge(record, deadline)
            removed.append(record)
        except VssSnapError as exc:
            if first is None:
                first = exc
            else:
                first.add_note(str(exc))
    if first is not None:
        raise first
    return removed
