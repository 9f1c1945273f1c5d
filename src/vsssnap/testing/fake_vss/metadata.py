"""`IVssExamineWriterMetadata`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from vsssnap._win32.constants import SourceType, UsageType
from vsssnap._win32.hresult import HResult
from vsssnap.testing.fake_vss.objects import FakeObject, put_id

if TYPE_CHECKING:
    from vsssnap.testing.fake_vss.machine import Machine
    from vsssnap.testing.fake_vss.parts import FakeWriter

CData = Any


class FakeMetadata(FakeObject):
    """What a writer says of itself."""

    interface = title = "IVssExamineWriterMetadata"
    answers: ClassVar[tuple[str, ...]] = ("IVssExamineWriterMetadata",)

    def __init__(self, machine: Machine, writer: FakeWriter) -> None:
        super().__init__(machine)
        self._writer = writer

    def GetIdentity(self, instance: CData, writer: CData, name: CData, usage: CData, source: CData) -> int:
        """IVssExamineWriterMetadata::GetIdentity."""
        put_id(instance, self._writer.instance_id)
        put_id(writer, self._writer.writer_id)
        name[0] = self.machine.bstr(self._writer.name)
        usage[0], source[0] = UsageType.VSS_UT_USERDATA, SourceType.VSS_ST_OTHER
        return HResult.S_OK

    def SaveAsXML(self, out: CData) -> int:
        """IVssExamineWriterMetadata::SaveAsXML."""
        out[0] = self.machine.bstr(self._writer.document)
        return HResult.S_OK
