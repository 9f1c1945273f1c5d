"""The oracles themselves, on images whose content is known: the table of `oracles.READS` holds."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import corpus_images
import oracles
import vhdx_spec

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


# What we write, and what reads it besides the families that are listed.
WRITTEN = {
    "vhd": (),
    "vhd-diff": (),
    "vhdx": (),
    "vhdx-odd": (),
    "vhdx-4kn": (),
    "vhdx-4kn-odd": (),
    "vhdx-diff": (),
    "vhdx-diff-odd": (),
    "vhdx-diff-zero": (),
    "vhdx-diff-zero-odd": (vhdx_spec.__name__,),  # by the specification, from the documents alone
    "vhdx-diff-chain": (vhdx_spec.__name__,),
    "qcow2": (),
    "qcow2-zlib": (),
    "qcow2-zstd": (),
    "qcow2-backing": (),
    "qcow2-backing-zero": (),
    "vmdk": (),
    "vmdk-stream": (),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_two_readers_at_least_are_independent_for_what_we_write(kind: str) -> None:
    assert len(set(oracles.readers(kind)) | set(WRITTEN[kind])) >= 2


def test_an_oracle_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(oracles, "_DEADLINE", 0.5)
    with pytest.raises(oracles.OracleError, match=r"took more than 0.5 s"):
        oracles.run(["sleep", "60"])
    # Of 7-Zip the content is read as it comes: it may come slowly, or stop.
    slow = tmp_path / "7zz"
    slow.write_text("#!/bin/sh\necho begin\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(oracles.OracleError, match="7zz: exit -9"):
        oracles.content("7zz", tmp_path / "image.vhd", "vhd")


def test_an_oracle_that_takes_all_memory_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracles, "_MEMORY", 1 << 30)
    with pytest.raises(oracles.OracleError, match="MemoryError"):
        oracles.run([sys.executable, "-c", "bytearray(2 << 30)"])


def test_images_that_differ_are_not_compared_as_the_same(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / str(number)).write_bytes(bytes(65535) + bytes([number // 2]))
    oracles.compare(tmp_path / "0", "raw", tmp_path / "1", "raw")
    with pytest.raises(oracles.OracleError):
        oracles.compare(tmp_path / "0", "raw", tmp_path / "2", "raw")


def test_the_digest_leaves_out_zeros() -> None:
    data = bytes(oracles.BLOCK) + b"x" * 100

    assert oracles.content_of(data) == oracles.Content(
        len(data), oracles.digest_of([(oracles.BLOCK, b"x" * 100)])
    )
