"""The order in which a requester calls VSS, as tables.

Source: "Shadow Copy Creation Details" (the two kinds, with and without writers), "Overview of
Pre-Backup Tasks", "Aborting VSS Operations", and the page of each method of IVssBackupComponents.

Each step is a method of `Requester`.  A step that fails ends the sequence; whatever was begun is then
ended by `Requester.end`, which knows from what succeeded whether AbortBackup is due:

* before StartSnapshotSet nothing is: Release is enough;
* from there to the end AbortBackup is, and again after a DoSnapshotSet that failed, for which there is
  never a BackupComplete;
* after BackupComplete nothing is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        name: Method of `Requester`.
        seconds: The most it may take, within the budget of the whole, if nobody can set that.
        timeout: The attribute of `StepTimeouts` that sets it, or "".
        writers_only: Whether it is left out where no writers take part, for there it is an error.
    """

    name: str
    seconds: float = 60.0
    timeout: str = ""
    writers_only: bool = False


PREPARE = (
    Step("create"),
    Step("initialize"),
    Step("set_context"),
    Step("set_backup_state"),
    Step(
        "exclude_writers", timeout="gather_writers", writers_only=True
    ),  # before the gathering, else without effect
    Step("gather_writers", timeout="gather_writers", writers_only=True),  # once in the life of the object
    Step("add_components", writers_only=True),
    Step("start_set", math.inf),  # waits for other requesters
    Step("add_volumes"),
    Step("prepare_writers", timeout="prepare_writers", writers_only=True),
    Step("ask_writers", timeout="ask_writers", writers_only=True),
)
"""Everything slow; applications run."""

INSTANT = (Step("do_snapshot_set", timeout="do_snapshot_set"),)
"""The instant; applications are quiet."""

TAKE = (
    Step("ask_writers", timeout="ask_writers", writers_only=True),
    Step("read_properties"),
    Step("save_document", writers_only=True),  # not before writers are done with it
)
"""What became of it; applications run again."""

COMPLETE = (
    Step("tell_components", writers_only=True),  # before BackupComplete, or writers hear nothing of it
    Step("backup_complete", timeout="backup_complete", writers_only=True),
    Step("ask_writers", timeout="ask_writers", writers_only=True),
)
"""The copy is made and good."""


def steps(table: tuple[Step, ...], *, writers: bool) -> list[Step]:
    """The steps of a table for one kind of shadow copy."""
    return [step for step in table if writers or not step.writers_only]
