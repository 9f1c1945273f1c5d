"""The oracles themselves, on images whose content is known: the table of `oracles.READS` holds."""

from __future__ import annotations

from pathlib import Path

import pytest

import corpus_images
import oracles

KINDS = {
    "dissect.hypervisor/disk/vhd/dynamic.vhd": "vhd",
    "dfvfs/ntfs-differential.vhd": "vhd-diff",
    "dfvfs/ntfs-dynamic.vhdx": "vhdx",
    "dfvfs/ntfs-differential.vhdx": "vhdx-diff",
    "DiscUtils/vhdx-log-replay.vhdx": "vhdx-log",
    "plaso/image.qcow2": "qcow2",
    "dissect.hypervisor/disk/qcow2/basic.qcow2": "qcow2-zlib",
    "dfvfs/ext2.vmdk": "vmdk",
    "dissect.hypervisor/disk/vmdk/sesparse.vmdk": "vmdk-sesparse",
}


@pytest.mark.parametrize(
    ("name", "family"),
    [(name, family) for name, kind in KINDS.items() for family in oracles.readers(kind)],
)
def test_a_family_reads_the_kinds_it_is_listed_for(name: str, family: str) -> None:
    known = corpus_images.expected()[name]
    path = corpus_images.image(name)
    parents = [corpus_images.image(parent) for parent in known.parents]

    seen = oracles.content(family, path, KINDS[name], parents=parents)

    assert seen == oracles.Content(known.size, known.digest)


@pytest.mark.parametrize("family", ["qemu", "libyal", "dissect"])
def test_spots_are_the_bytes_at_their_offsets(family: str) -> None:
    # Known by the NTFS boot sector of the partition at sector 128, and by zeros before it.
    path = corpus_images.image("dfvfs/ntfs-fixed.vhdx")

    seen = oracles.spots(family, path, "vhdx", [(510, 2), (1024, 16), (128 * 512 + 3, 8)])

    assert seen == [b"\x55\xaa", bytes(16), b"NTFS    "]


def test_a_clean_image_has_no_complaints() -> None:
    assert not oracles.complaints(corpus_images.image("dfvfs/ntfs-dynamic.vhdx"), "vhdx")


def test_a_truncated_image_has_complaints(tmp_path: Path) -> None:
    cut = tmp_path / "cut.vhdx"
    cut.write_bytes(corpus_images.image("dfvfs/ntfs-dynamic.vhdx").read_bytes()[: -1 << 20])

    assert oracles.complaints(cut, "vhdx")


def test_the_digest_leaves_out_zeros() -> None:
    data = bytes(oracles.BLOCK) + b"x" * 100

    assert oracles.content_of(data) == oracles.Content(
        len(data), oracles.digest_of([(oracles.BLOCK, b"x" * 100)])
    )
