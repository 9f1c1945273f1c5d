"""Asking the writers of this machine what they have, by a requester that backs up nothing."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from vsssnap._win32.backup_components import BackupComponents
from vsssnap._win32.operations import wait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap._deadline import Deadline
    from vsssnap._win32.dll import System


@contextmanager
def gathered(system: System, deadline: Deadline) -> Iterator[BackupComponents]:
    """A requester for which writers have said what they have; for the worker's thread alone."""
    vss = BackupComponents(system)
    try:
        vss.initialize_for_backup()
        try:
            wait(vss.gather_writer_metadata(), deadline, "GatherWriterMetadata")
            yield vss
        finally:
            vss.free()
    finally:
        vss.release()
