"""Snapshot providers: the contract for drivers, and the drivers this installation has."""

from __future__ import annotations

from vsssnap._deadline import Deadline as Deadline
from vsssnap.providers.base import PROVIDER_API as PROVIDER_API
from vsssnap.providers.base import AllocationMap as AllocationMap
from vsssnap.providers.base import LeftOut as LeftOut
from vsssnap.providers.base import Offer as Offer
from vsssnap.providers.base import Provider as Provider
from vsssnap.providers.base import ProviderStep as ProviderStep
from vsssnap.providers.base import SnapshotRecord as SnapshotRecord
from vsssnap.providers.base import SnapshotRequest as SnapshotRequest
from vsssnap.providers.base import SnapshotVolume as SnapshotVolume
from vsssnap.providers.base import Taken as Taken
from vsssnap.providers.choice import available as available
from vsssnap.providers.choice import by_name as by_name
