"""What `IVssBackupComponents` asks of writers: which there are, what they have, how they are.

Written from the pages of each method in the Windows SDK documentation; the rule stands beside each
refusal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vsssnap._win32.constants import WriterState
from vsssnap._win32.hresult import HResult, signed
from vsssnap.testing.fake_vss.hardware import HardwareSlots
from vsssnap.testing.fake_vss.metadata import FakeMetadata
from vsssnap.testing.fake_vss.objects import id_of, put_id

if TYPE_CHECKING:
    from uuid import UUID

    from vsssnap.testing.fake_vss.machine import Machine
    from vsssnap.testing.fake_vss.writers import FakeWriter

CData = Any
_OK, _BAD = HResult.S_OK, HResult.VSS_E_BAD_STATE


class WriterSlots(HardwareSlots):
    """Writers that are left out, gathered and asked."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.disabled: set[UUID] = set()  # classes and instances
        self.enabled: set[UUID] | None = None  # None for all
        self.gathering = False
        self.unread_metadata = False
        self.statuses: list[tuple[FakeWriter, int, int]] | None = None

    def _text(self, out: CData, text: str) -> None:
        out[0] = self.machine.bstr(text)

    def DisableWriterClasses(self, ids: CData, count: int) -> int:
        """Before GatherWriterMetadata; after it without effect."""
        if not self.purpose:
            return _BAD
        if not self.gathering:
            self.disabled |= {id_of(ids[index]) for index in range(count)}
        return _OK

    def EnableWriterClasses(self, ids: CData, count: int) -> int:
        """Before GatherWriterMetadata; all others are then left out."""
        if not self.purpose:
            return _BAD
        if not self.gathering:
            self.enabled = (self.enabled or set()) | {id_of(ids[index]) for index in range(count)}
        return _OK

    def DisableWriterInstances(self, ids: CData, count: int) -> int:
        """Before GatherWriterMetadata; after it without effect."""
        if not self.purpose:
            return _BAD
        if not self.gathering:
            self.disabled |= {id_of(ids[index]) for index in range(count)}
        return _OK

    def GatherWriterMetadata(self, out: CData) -> int:
        """Once in the life of the object."""
        if not self.purpose or self.gathering:
            return _BAD
        self.gathering = True

        def effect() -> None:
            self.writers = [
                writer
                for writer in self.machine.writers
                if not {writer.writer_id, writer.instance_id} & self.disabled
                and (self.enabled is None or writer.writer_id in self.enabled)
            ]
            self.unread_metadata = True
            self.tell("identify")
            # "Determining Writer Status": one that fails there is in no list, and has no status.
            failed = WriterState.VSS_WS_FAILED_AT_IDENTIFY
            self.writers = [writer for writer in self.writers if writer.state != failed]

        return self.begin("GatherWriterMetadata", out, effect)

    def GetWriterMetadataCount(self, out: CData) -> int:
        """After GatherWriterMetadata has finished."""
        if self.writers is None or not self.unread_metadata:
            return _BAD
        out[0] = len(self.writers)
        return _OK

    def GetWriterMetadata(self, index: int, instance: CData, out: CData) -> int:
        """After GatherWriterMetadata has finished, and before FreeWriterMetadata."""
        if self.writers is None or not self.unread_metadata:
            return _BAD
        if index >= len(self.writers):
            return HResult.VSS_E_OBJECT_NOT_FOUND
        put_id(instance, self.writers[index].instance_id)
        FakeMetadata(self.machine, self.writers[index]).give(out)
        return _OK

    GetWriterMetadataEx = GetWriterMetadata
    """The same, by a wider interface."""

    def FreeWriterMetadata(self) -> int:
        """After GatherWriterMetadata."""
        if self.writers is None:
            return _BAD
        self.unread_metadata = False
        return _OK

    def GatherWriterStatus(self, out: CData) -> int:
        """Whenever writers were gathered."""
        if not self.purpose:
            return _BAD

        def effect() -> None:
            self.statuses = [(w, int(w.state), w.failure) for w in self.writers or ()]

        return self.begin("GatherWriterStatus", out, effect)

    def GetWriterStatusCount(self, out: CData) -> int:
        """After GatherWriterStatus has finished."""
        if self.statuses is None:
            return _BAD
        out[0] = len(self.statuses)
        return _OK

    def GetWriterStatus(
        self, index: int, instance: CData, writer: CData, name: CData, state: CData, failure: CData
    ) -> int:
        """After GatherWriterStatus has finished, and before FreeWriterStatus."""
        if self.statuses is None:
            return _BAD
        if index >= len(self.statuses):
            return HResult.VSS_E_OBJECT_NOT_FOUND
        found, found_state, code = self.statuses[index]
        put_id(instance, found.instance_id)
        put_id(writer, found.writer_id)
        self._text(name, found.name)
        state[0], failure[0] = found_state, signed(code)
        return _OK

    def GetWriterStatusEx(self, index: int, *out: CData) -> int:
        """The same, with what the application said."""
        instance, writer, name, state, failure, application, message = out
        code = self.GetWriterStatus(index, instance, writer, name, state, failure)
        if not code and self.statuses is not None and application and message:
            found = self.statuses[index][0]
            application[0] = signed(HResult.E_FAIL) if found.failure and found.message else 0
            self._text(message, found.message if found.failure else "")
        return code

    def FreeWriterStatus(self) -> int:
        """Whenever."""
        self.statuses = None
        return _OK
