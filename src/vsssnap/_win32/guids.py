"""Interface and class ids under their header names; a test compares them with headers.

Source: vss.h, vswriter.h, vsbackup.h, vsmgmt.h, vsadmin.h, unknwn.h; Windows SDK 10.0.22621.
An interface that is missing here has no id: it is reached by a method alone.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

GUID_NULL: Final = UUID(int=0)

IIDS: Final = {
    name: UUID(text)
    for name, text in {
        "IUnknown": "00000000-0000-0000-c000-000000000046",
        "IVssAsync": "507c37b4-cf5b-4e95-b0af-14eb9767467e",
        "IVssEnumObject": "ae1c7110-2f60-11d3-8a39-00c04f72d8e3",
        "IVssComponent": "d2c72c96-c121-4518-b627-e5a93d010ead",
        "IVssComponentEx": "156c8b5e-f131-4bd7-9c97-d1923be7e1fa",
        "IVssComponentEx2": "3b5be0f2-07a9-4e4b-bdd3-cfdc8e2c0d2d",
        "IVssExamineWriterMetadata": "902fcf7f-b7fd-42f8-81f1-b2e400b1e5bd",
        "IVssExamineWriterMetadataEx": "0c0e5ec0-ca44-472b-b702-e652db1c0451",
        "IVssExamineWriterMetadataEx2": "ce115780-a611-431b-b57f-c38303ab6aee",
        "IVssBackupComponents": "665c1d5f-c218-414d-a05d-7fef5f9d5c86",
        "IVssBackupComponentsEx": "963f03ad-9e4c-4a34-ac15-e4b6174e5036",
        "IVssBackupComponentsEx2": "acfe2b3a-22c9-4ef8-bd03-2f9ca230084e",
        "IVssBackupComponentsEx3": "c191bfbc-b602-4675-8bd1-67d642f529d5",
        "IVssBackupComponentsEx4": "f434c2fd-b553-4961-a9f9-a8e90b673e53",
        "IVssSnapshotMgmt": "fa7df749-66e7-4986-a27f-e2f04ae53772",
        "IVssSnapshotMgmt2": "0f61ec39-fe82-45f2-a3f0-768b5d427102",
        "IVssDifferentialSoftwareSnapshotMgmt": "214a0f28-b737-4026-b847-4f9e37d79529",
        "IVssDifferentialSoftwareSnapshotMgmt2": "949d7353-675f-4275-8969-f044c6277815",
        "IVssDifferentialSoftwareSnapshotMgmt3": "383f7e71-a4c5-401f-b27f-f826289f8458",
        "IVssEnumMgmtObject": "01954e6b-9254-4e6e-808c-c9e05d007696",
        "IVssAdmin": "77ed5996-2f63-11d3-8a39-00c04f72d8e3",
        "IVssAdminEx": "7858a9f8-b1fa-41a6-964f-b9b36b8cd8d8",
    }.items()
}

CLSIDS: Final = {
    "VSSCoordinator": UUID("e579ab5f-1cc4-44b4-bed9-de0991ff0623"),
    "VssSnapshotMgmt": UUID("0b5a2c52-3eb9-470a-96e2-6c6d4570e40f"),
}

SYSTEM_PROVIDER: Final = UUID("b5946137-7b9f-4925-af80-51abd60b20d5")
"""The Microsoft Software Shadow Copy provider."""
