"""The Volume Shadow Copy Service, beyond what `Snapshot` does by itself.

::

    options = VssOptions(exclude_writers=("SqlServerWriter",))
    with Snapshot("C:", "D:", options=options) as s:
        ...
    for writer in list_writers():
        print(writer.name, writer.state, writer.message)
"""

from __future__ import annotations

from vsssnap.providers.vss.catalogue import WriterComponent as WriterComponent
from vsssnap.providers.vss.catalogue import list_components as list_components
from vsssnap.providers.vss.copies import ShadowCopyRecord as ShadowCopyRecord
from vsssnap.providers.vss.copies import delete_shadow_copy as delete_shadow_copy
from vsssnap.providers.vss.copies import expose_shadow_copy as expose_shadow_copy
from vsssnap.providers.vss.copies import list_shadow_copies as list_shadow_copies
from vsssnap.providers.vss.copies import purge_orphans as purge_orphans
from vsssnap.providers.vss.copies import unexpose_shadow_copy as unexpose_shadow_copy
from vsssnap.providers.vss.management import InstalledProvider as InstalledProvider
from vsssnap.providers.vss.management import ShadowStorage as ShadowStorage
from vsssnap.providers.vss.management import list_providers as list_providers
from vsssnap.providers.vss.management import list_writers as list_writers
from vsssnap.providers.vss.management import resize_shadow_storage as resize_shadow_storage
from vsssnap.providers.vss.management import shadow_storage as shadow_storage
from vsssnap.providers.vss.mounted import volumes_below as volumes_below
from vsssnap.providers.vss.options import BackupKind as BackupKind
from vsssnap.providers.vss.options import ComponentSelection as ComponentSelection
from vsssnap.providers.vss.options import ComponentSelector as ComponentSelector
from vsssnap.providers.vss.options import ComSecurity as ComSecurity
from vsssnap.providers.vss.options import StepTimeouts as StepTimeouts
from vsssnap.providers.vss.options import VssOptions as VssOptions
from vsssnap.providers.vss.protection import ProtectionLevel as ProtectionLevel
from vsssnap.providers.vss.protection import VolumeProtection as VolumeProtection
from vsssnap.providers.vss.protection import clear_protection_fault as clear_protection_fault
from vsssnap.providers.vss.protection import delete_unused_shadow_storage as delete_unused_shadow_storage
from vsssnap.providers.vss.protection import least_shadow_storage as least_shadow_storage
from vsssnap.providers.vss.protection import protect_volume as protect_volume
from vsssnap.providers.vss.protection import volume_protection as volume_protection
from vsssnap.providers.vss.restorable import DirectedFile as DirectedFile
from vsssnap.providers.vss.restorable import FileSet as FileSet
from vsssnap.providers.vss.restorable import Placement as Placement
from vsssnap.providers.vss.restorable import RestorableComponent as RestorableComponent
from vsssnap.providers.vss.restorable import RestoreStatus as RestoreStatus
from vsssnap.providers.vss.restorable import RestoreTarget as RestoreTarget
from vsssnap.providers.vss.restore import WriterRestore as WriterRestore
from vsssnap.providers.vss.reverting import break_shadow_copy_set as break_shadow_copy_set
from vsssnap.providers.vss.reverting import revert_to_shadow_copy as revert_to_shadow_copy
from vsssnap.providers.vss.reverting import wait_for_revert as wait_for_revert
from vsssnap.providers.vss.writer_documents import AlternateLocation as AlternateLocation
from vsssnap.providers.vss.writer_documents import DocumentedComponent as DocumentedComponent
from vsssnap.providers.vss.writer_documents import RestoreMethod as RestoreMethod
from vsssnap.providers.vss.writer_documents import WriterDocument as WriterDocument
from vsssnap.providers.vss.writer_documents import read_writer_document as read_writer_document
