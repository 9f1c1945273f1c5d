"""The side-car ``<image>.vsssnap``: checksums, states and metadata for formats without room.

It speaks of the *virtual disk* alone (which bytes it holds, which ranges were never read), not
of the container that keeps it, so the same file serves raw, VHD, VHDX, QCOW2 and VMDK, and it
stays true when another program rewrites the container without changing a byte of the disk.
``docs/formats/sidecar.md`` is its specification to the byte.

Its checksums are XXH3-128: they detect accidents.  They prove nothing against somebody who
wants two contents with one checksum; signing is not their job.
"""

from __future__ import annotations

from vsssnap.formats.sidecar.checking import verify_with_sidecar as verify_with_sidecar
from vsssnap.formats.sidecar.reader import SidecarReader as SidecarReader
from vsssnap.formats.sidecar.states import States as States
from vsssnap.formats.sidecar.writer import SidecarWriter as SidecarWriter
from vsssnap.formats.sidecar.writer import with_sidecar as with_sidecar
