"""Runs the tests that need nothing of Linux: under a real Windows, or the Windows Python of the lab.

Files are named here once they have passed under a Windows Python.  Arguments are pytest's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent.parent

LIBRARY = (
    "tests/test_crc32c.py",
    "tests/test_deadline.py",
    "tests/test_errors.py",
    "tests/test_files_positional.py",
    "tests/test_metadata.py",
    "tests/test_record.py",
    "tests/test_units.py",
    "tests/blocks/test_extent.py",
    "tests/blocks/test_pipeline.py",
    "tests/blocks/test_reader_views.py",
    "tests/formats/qcow2/test_reader.py",
    "tests/formats/qcow2/test_verify.py",
    "tests/formats/test_raw.py",
    "tests/formats/test_registry.py",
    "tests/formats/vhdx/test_vhdx_chain.py",
    "tests/formats/vsnap/test_chain.py",
    "tests/imaging/test_comparing.py",
    "tests/imaging/test_verifying.py",
    "tests/volumes/test_view.py",
)
"""Run by the Wine lab every time."""

VSS = (
    "tests/win32/test_build_ffi.py",
    "tests/win32/test_protocols.py",
    "tests/win32/test_com.py",
    "tests/win32/test_operations.py",
    "tests/testing/test_fake_vss.py",
    "tests/testing/test_fake_vss_components.py",
    "tests/providers/vss/test_components.py",
    "tests/providers/vss/test_copies.py",
    "tests/providers/vss/test_journal.py",
    "tests/providers/vss/test_provider_components.py",
    "tests/providers/vss/test_requester.py",
    "tests/providers/vss/test_restore.py",
)
"""Likewise: the binding and the requester."""

DEVICES = (
    "tests/blocks/test_windows.py",
    "tests/win32/test_files.py",
    "tests/win32/test_slots.py",
    "tests/providers/vss/test_clusters.py",
    "tests/providers/vss/test_exclusions.py",
    "tests/providers/vss/test_reader.py",
)
"""Likewise: devices."""

MORE = (
    "tests/blocks/test_mapped.py",
    "tests/cli/test_exits.py",
    "tests/cli/test_images.py",
    "tests/cli/test_logical.py",
    "tests/cli/test_options.py",
    "tests/cli/test_output.py",
    "tests/cli/test_views.py",
    "tests/cli/test_wording.py",
    "tests/contract/test_formats.py",
    "tests/disk/test_logical.py",
    "tests/formats/qcow2/test_driver_damage.py",
    "tests/formats/qcow2/test_writer.py",
    "tests/formats/test_cache.py",
    "tests/formats/test_findings.py",
    "tests/formats/test_storage.py",
    "tests/formats/vhd/test_locators.py",
    "tests/formats/vhd/test_table.py",
    "tests/formats/vhd/test_vhd.py",
    "tests/formats/vhd/test_vhd_model.py",
    "tests/formats/vhdx/test_reader_cut.py",
    "tests/formats/vhdx/test_vhdx.py",
    "tests/formats/vhdx/test_vhdx_damage.py",
    "tests/formats/vhdx/test_vhdx_log.py",
    "tests/formats/vhdx/test_vhdx_model.py",
    "tests/formats/vmdk/test_vmdk.py",
    "tests/formats/vmdk/test_vmdk_model.py",
    "tests/formats/vsnap/test_rebuild.py",
    "tests/formats/vsnap/test_stored.py",
    "tests/formats/vsnap/test_verify_damage.py",
    "tests/formats/vsnap/test_vsnap_model.py",
    "tests/formats/vsnap/test_vsnap_vectors.py",
    "tests/formats/vsnap/test_writer.py",
    "tests/golden/test_vsnap0.py",
    "tests/imaging/test_chain_parents.py",
    "tests/imaging/test_committing.py",
    "tests/imaging/test_copying.py",
    "tests/imaging/test_copying_changes.py",
    "tests/imaging/test_copying_rate_limit.py",
    "tests/imaging/test_copying_workers.py",
    "tests/imaging/test_reports.py",
    "tests/providers/vss/test_evidence.py",
    "tests/providers/vss/test_management.py",
    "tests/providers/vss/test_mounted.py",
    "tests/providers/vss/test_names.py",
    "tests/providers/vss/test_provider.py",
    "tests/providers/vss/test_reader_large.py",
    "tests/providers/vss/test_requester_thread.py",
    "tests/providers/vss/test_reverting.py",
    "tests/providers/vss/test_stamps.py",
    "tests/providers/vss/test_storage_watch.py",
    "tests/providers/vss/test_vss_bad_input.py",
    "tests/providers/vss/test_worker.py",
    "tests/providers/vss/test_writer_documents.py",
    "tests/test_held.py",
    "tests/test_inventory.py",
    "tests/test_registry.py",
    "tests/test_retries.py",
    "tests/test_snapshot_view.py",
    "tests/testing/test_fake_vss_hardware.py",
    "tests/testing/test_fake_vss_management.py",
    "tests/testing/test_fake_vss_objects.py",
    "tests/testing/test_fake_vss_writers.py",
    "tests/testing/test_faults.py",
    "tests/testing/test_faulty.py",
    "tests/testing/test_formats.py",
    "tests/testing/test_live.py",
    "tests/testing/test_memory.py",
    "tests/testing/test_powercut.py",
    "tests/testing/test_readers.py",
    "tests/testing/test_seeded.py",
    "tests/testing/test_strategies.py",
    "tests/volumes/shadow/test_changes.py",
    "tests/volumes/shadow/test_reader.py",
    "tests/volumes/shadow/test_shadow_damage.py",
    "tests/volumes/shadow/test_shadow_model.py",
    "tests/volumes/shadow/test_table.py",
    "tests/win32/test_failures.py",
    "tests/win32/test_layout.py",
)
"""Run by the Wine lab with ``--long``."""


CHOSEN = ("-m", "not lab and not long")
PYTEST = ("-m", "pytest", *CHOSEN)
"""Arguments of a Python that runs some of them."""


if __name__ == "__main__":
    files = [str(TOP / name) for name in (*LIBRARY, *VSS, *DEVICES, *MORE)]
    sys.exit(pytest.main(["-p", "no:cacheprovider", *CHOSEN, *sys.argv[1:], *files]))
