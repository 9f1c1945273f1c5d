"""``save`` of a part of a source, and what ``info`` finds in an image."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pytest

from command_line import vsssnap
from foreign import corpus_file, mkntfs, ntfs_put, sfdisk
from loops import sparse_file
from requirements import require_corpus
from vsssnap import DEFAULT_EXCLUSIONS, ExtentKind, as_disk, open_device, open_image, save_image
from vsssnap.cli.views import EXCLUSIONS
from vsssnap.volumes import Partitions, ShadowVolume

MIB = 1 << 20


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NTFS with a page file and the rest of a deleted file."""
    folder = tmp_path_factory.mktemp("ntfs")
    made = mkntfs(folder / "volume.raw", 8 * MIB, label="Win")
    ntfs_put(made, b"data" * 100_000, "kept.bin", folder)
    ntfs_put(made, b"page" * 100_000, "pagefile.sys", folder)
    raw = bytearray(made.read_bytes())
    at = raw.index(bytes(64 * 1024), 5 * MIB)
    raw[at : at + 1000] = b"deleted!" * 125
    made.write_bytes(raw)
    return made


def read(image: Path) -> bytes:
    with open_image(image) as reader:
        return reader.pread(reader.size, 0)


@pytest.mark.parametrize(
    ("options", "deleted", "page"),
    [
        ((), False, False),
        (("--unused", "read"), True, False),
        (("--no-exclude",), False, True),
        (("--unused", "read", "--no-exclude"), True, True),
        (("--exclude", "swap-file"), False, True),
        (("--live",), True, True),
        (("--live", "--unused", "zero", "--exclude", "page-file"), False, False),
    ],
)
def test_save_leaves_out_what_is_asked_for(
    options: tuple[str, ...], deleted: bool, page: bool, volume: Path, tmp_path: Path
) -> None:
    image = tmp_path / "a.vsnap"
    vsssnap("save", volume, image, *options)
    content = read(image)
    assert (b"deleted!" in content, b"page" * 9000 in content) == (deleted, page)
    assert b"data" * 99_000 in content
    if deleted and page:
        assert content == volume.read_bytes()


def test_the_reason_for_keeping_every_block_is_said(volume: Path, tmp_path: Path) -> None:
    dirty = bytearray(volume.read_bytes())
    mft = int.from_bytes(dirty[0x30:0x38], "little") * 4096
    record = mft + 3 * 1024
    at = record + int.from_bytes(dirty[record + 20 : record + 22], "little")
    while dirty[at] != 0x70:
        at += int.from_bytes(dirty[at + 4 : at + 8], "little")
    dirty[at + 24 + 10] |= 1
    source = tmp_path / "dirty.raw"
    source.write_bytes(dirty)
    shown = vsssnap("save", source, tmp_path / "a.vsnap")
    assert "every block is kept, used or not: the volume is marked dirty" in shown.stdout
    assert read(tmp_path / "a.vsnap") == dirty


@pytest.fixture
def disk(volume: Path, tmp_path: Path) -> Path:
    path = sparse_file(tmp_path / "disk.raw", 16 * MIB)
    sfdisk(
        path,
        "label: gpt\nstart=2048,size=2048,type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n"
        'start=4096,size=16384,type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7,name="Basic data"\n',
    )
    with path.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(volume.read_bytes())
    return path


def test_a_partition_is_taken_out_of_a_raw_disk(disk: Path, volume: Path, tmp_path: Path) -> None:
    whole, used = tmp_path / "whole.vsnap", tmp_path / "used.vsnap"
    vsssnap("save", disk, whole, "--partition", "2", "--unused", "read", "--no-exclude")
    assert read(whole) == volume.read_bytes()
    vsssnap("save", disk, used, "--partition", "2")
    assert b"deleted!" not in read(used)
    with open_image(used) as image:
        assert image.metadata.filesystem == "ntfs"
        assert image.metadata.provider == "static"
        assert f"it is partition 2 of {disk}" in image.metadata.notes
        assert image.metadata.exclusions == ("\\pagefile.sys",)


def test_a_partition_is_taken_out_of_an_image_and_of_a_wrapped_volume(
    disk: Path, volume: Path, tmp_path: Path
) -> None:
    image, part = tmp_path / "disk.vsnap", tmp_path / "part.raw"
    vsssnap("convert", disk, image)
    vsssnap("save", image, part, "--partition", "2", "--unused", "read", "--no-exclude")
    assert part.read_bytes() == volume.read_bytes()
    wrapped, again = tmp_path / "wrapped.vsnap", tmp_path / "again.vsnap"
    with open_device(volume) as reader:
        save_image(as_disk(reader), wrapped)
    vsssnap("save", wrapped, again, "--partition", "1", "--unused", "read", "--no-exclude")
    with open_image(again) as opened:
        assert opened.metadata.documents == {}
        assert opened.pread(opened.size, 0) == volume.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("disk.raw", "a.vsnap", "--partition", "3"), 2, "it has 1, 2"),
        (("volume.raw", "a.vsnap", "--partition", "1"), 19, "there is no partition table"),
        (("disk.raw", "volume.raw", "{name}.vsnap", "--partition", "1"), 2, "about one source"),
        (("disk.raw", "a.vsnap", "--exclude", "page-file", "--no-exclude"), 2, "contradict"),
        (("disk.raw", "a.vsnap", "--exclude", "mail"), 2, "page-file"),
    ],
)
def test_what_cannot_be_taken_is_refused(
    arguments: tuple[str, ...],
    status: int,
    said: str,
    disk: Path,
    volume: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "volume.raw").write_bytes(volume.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert said in vsssnap("save", *arguments, status=status).stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk.raw", "volume.raw"]


def test_info_draws_partitions_and_file_systems(disk: Path, volume: Path, tmp_path: Path) -> None:
    shown = vsssnap("info", disk).stdout
    assert "gpt disk" in shown
    assert "├─ partition 1, 1.00 MiB at 1.00 MiB, EFI system" in shown
    assert '└─ partition 2, 8.00 MiB at 2.00 MiB, Microsoft basic data "Basic data"' in shown
    assert '   └─ ntfs "Win"' in shown
    found = json.loads(vsssnap("info", disk, "--json").stdout)["contents"]
    assert found["table"] == "gpt"
    assert [part["number"] for part in found["partitions"]] == [1, 2]
    assert found["partitions"][1]["filesystem"]["label"] == "Win"
    assert found["partitions"][1]["offset"] == 2 * MIB
    assert "filesystem" not in found["partitions"][0]
    bare = json.loads(vsssnap("info", volume, "--json").stdout)["contents"]
    assert bare["filesystem"]["name"] == "ntfs"


def test_info_says_what_is_wrong_with_a_table(disk: Path, tmp_path: Path) -> None:
    content = bytearray(disk.read_bytes())
    content[512 + 60] ^= 1
    disk.write_bytes(content)
    assert "│  the backup GPT is used" in vsssnap("info", disk).stdout
    content[-512 + 60] ^= 1
    disk.write_bytes(content)
    assert "no good GPT header" in vsssnap("info", disk).stdout
    disk.write_bytes(content[: 3 * MIB])
    assert "3.00 MiB" in vsssnap("info", disk).stdout


def test_info_of_a_cut_disk_shows_what_is_there(tmp_path: Path) -> None:
    path = corpus_file("dfvfs/mbr.raw", tmp_path)
    with path.open("r+b") as file:
        file.truncate(131 * 512)
    shown = vsssnap("info", path).stdout
    assert "partition 1" in shown
    assert "partition 5 ends at byte" in shown or "partition 2" in shown


def test_exclusions_of_the_command_line_are_those_of_the_library() -> None:
    assert tuple(str(each) for each in DEFAULT_EXCLUSIONS) == EXCLUSIONS


@pytest.fixture(scope="module")
def windows_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk whose second partition has two shadow copies, made by Windows."""
    folder = tmp_path_factory.mktemp("windows")
    inner = corpus_file("dfvfs/vss.raw", folder)
    path = sparse_file(folder / "disk.raw", 96 * MIB)
    sectors = inner.stat().st_size // 512
    sfdisk(path, f"label: gpt\nstart=2048,size=2048\nstart=4096,size={sectors},type={BASIC_DATA}\n")
    with path.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(inner.read_bytes())
    inner.unlink()
    image = folder / "disk.vhdx"
    with open_device(path) as reader:
        save_image(reader, image)
    path.unlink()
    return image


def digest(data: bytes | bytearray) -> str:
    """Compared in place of the bytes: the difference of two volumes is nothing to print."""
    return hashlib.sha256(data).hexdigest()


BASIC_DATA = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"


def test_a_shadow_copy_of_a_partition_is_drawn_and_taken_out(windows_disk: Path, tmp_path: Path) -> None:
    shown = vsssnap("info", windows_disk).stdout
    assert "└─ ntfs" in shown
    assert shown.count("└─ shadow copy ") == 2
    found = json.loads(vsssnap("info", windows_disk, "--json").stdout)["contents"]["partitions"][1]
    first = found["shadow_copies"][0]
    image = tmp_path / "first.vsnap"
    exact = tmp_path / "exact.vsnap"
    chosen = ("--partition", "2", "--shadow", "1")
    vsssnap("save", windows_disk, image, *chosen)
    vsssnap("save", windows_disk, exact, *chosen, "--no-exclude")
    with open_image(windows_disk) as disk:
        store = ShadowVolume(Partitions(disk)[2].open()).stores[0]
        assert str(store.copy_id) == first["copy_id"]
        with store.open() as truth, open_image(image) as saved, open_image(exact) as whole:
            wanted = bytearray(truth.pread(truth.size, 0))
            assert digest(whole.pread(whole.size, 0)) == digest(wanted)
            # Block 0 of every copy shows the catalog of now, which the image does not have.
            pointer = slice(0x1E30, 0x1E38)
            assert any(wanted[pointer])
            wanted[pointer] = bytes(8)
            left_out = [each for each in saved.extents() if each.kind is ExtentKind.EXCLUDED]
            assert left_out
            for each in left_out:
                wanted[each.offset : each.end] = bytes(each.length)
            assert digest(saved.pread(saved.size, 0)) == digest(wanted)
            assert f"it is partition 2 of {windows_disk}" in saved.metadata.notes
            assert any("pointer to the catalog" in note for note in saved.metadata.notes)
    said = vsssnap("save", windows_disk, tmp_path / "b.vsnap", "--partition", "2", "--shadow", "9", status=2)
    assert f"partition 2 of {windows_disk} has no shadow copy 9" in said.stderr


@pytest.mark.long
def test_what_is_taken_out_is_as_libvshadow_reads_it_from_the_volume(
    windows_disk: Path, tmp_path: Path
) -> None:
    raw = tmp_path / "first.raw"
    chosen = ("--partition", "2", "--shadow", "1", "--shadow-unused", "windows", "--no-exclude")
    vsssnap("save", windows_disk, raw, *chosen)
    with open(require_corpus() / "vss" / "EXPECTED-VSS.tsv", encoding="utf-8", newline="") as file:
        known = {row["store(1=oldest)"]: row["sha256_full"] for row in csv.DictReader(file, delimiter="\t")}
    assert digest(raw.read_bytes()) == known["1"]


def test_a_volume_is_put_into_a_disk_and_compares_equal_to_itself(volume: Path, tmp_path: Path) -> None:
    options = ("--unused", "read", "--no-exclude")
    image, bare, other = tmp_path / "c.vhdx", tmp_path / "bare.vhdx", tmp_path / "other.vhd"
    said = vsssnap("save", volume, image, *options).stdout
    assert "put into a disk with one partition" in said
    vsssnap("compare", image, volume)
    vsssnap("save", volume, other, *options)
    vsssnap("compare", image, other)  # disks of different ids around the same volume
    vsssnap("save", volume, bare, *options, "--no-wrap")
    vsssnap("compare", bare, image)
    assert read(bare) == volume.read_bytes()
    vsssnap("restore", image, tmp_path / "back.raw")
    assert (tmp_path / "back.raw").read_bytes() == volume.read_bytes()
    vsssnap("restore", image, tmp_path / "disk.raw", "--no-unwrap")
    assert (tmp_path / "disk.raw").read_bytes() == read(image)
    vsssnap("compare", image, tmp_path / "disk.raw")
    vsssnap("convert", image, tmp_path / "c.vsnap")
    vsssnap("compare", tmp_path / "c.vsnap", volume)
    vsssnap("convert", bare, tmp_path / "d.vmdk")
    vsssnap("compare", tmp_path / "d.vmdk", volume)
    vsssnap("convert", bare, tmp_path / "whole.vsnap", "--wrap")
    vsssnap("compare", tmp_path / "whole.vsnap", volume)


def test_a_wrapped_volume_differs_from_a_disk_with_more_on_it(volume: Path, tmp_path: Path) -> None:
    image, disk = tmp_path / "c.vhdx", sparse_file(tmp_path / "disk.raw", 10 * MIB)
    vsssnap("save", volume, image)
    sfdisk(disk, "label: gpt\nstart=2048,size=16000\n")
    vsssnap("compare", image, disk, status=1)
