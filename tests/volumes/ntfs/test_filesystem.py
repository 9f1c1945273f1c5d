from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from foreign import (
    corpus_file,
    free_ranges,
    mkntfs,
    ntfs_bitmap,
    ntfs_put,
    ntfs_runs,
    restart_page,
    run_quietly,
)
from sources import Patched
from vsssnap import ExtentKind, open_device, restore_image
from vsssnap.errors import CorruptImageError
from vsssnap.testing import MemoryReader
from vsssnap.volumes import DEFAULT_EXCLUSIONS, Exclusion, FileSystem, UnusedPolicy, filesystem
from vsssnap.volumes.ntfs import filesystem as ntfs

MIB = 1 << 20


def free(fs: FileSystem) -> list[tuple[int, int]]:
    return [(each.offset, each.end) for each in fs.allocation() if each.kind is ExtentKind.HOLE]


def found(content: bytes) -> FileSystem:
    fs = filesystem(MemoryReader(content))
    assert fs is not None
    return fs


@pytest.mark.parametrize(
    ("sector", "cluster", "size"),
    [
        (512, 512, 8 * MIB),
        (512, 4096, 64 * MIB),
        (512, 65536, 64 * MIB),
        (512, 2 * MIB, 96 * MIB),
        (4096, 4096, 64 * MIB),
        (4096, 32768, 96 * MIB),
    ],
)
def test_the_map_is_what_the_ntfs_tools_say(sector: int, cluster: int, size: int, tmp_path: Path) -> None:
    volume = mkntfs(tmp_path / "v", size, "-s", str(sector), "-c", str(cluster), label="\u00e4pfel")
    for index in range(12):  # with gaps between them
        ntfs_put(volume, bytes([index]) * (index * 40_001), f"file{index}", tmp_path)
    with open_device(volume) as reader:
        fs = filesystem(reader)
        assert fs is not None
        assert (fs.name, fs.label, fs.block_size, fs.doubt, fs.dirty) == (
            "ntfs",
            "\u00e4pfel",
            cluster,
            "",
            False,
        )
        said = run_quietly("ntfsinfo", "-m", volume)
        clusters = int(re.search(r"Volume Size in Clusters: (\d+)", said)[1])  # type: ignore[index]
        count = int(re.search(r"Free Clusters: (\d+)", said)[1])  # type: ignore[index]
        assert fs.size == clusters * cluster
        assert sum(end - start for start, end in free(fs)) == count * cluster
        assert free(fs) == free_ranges(ntfs_bitmap(volume), clusters, cluster)


@pytest.mark.parametrize(("name", "count"), [("dfvfs/ntfs.raw", 642), ("dfvfs/vss.raw", None)])
def test_the_map_of_volumes_of_the_corpus(name: str, count: int | None, tmp_path: Path) -> None:
    volume = corpus_file(name, tmp_path)
    with open_device(volume) as reader:
        fs = filesystem(reader)
        assert fs is not None
        assert fs.doubt == ""
        assert free(fs) == free_ranges(ntfs_bitmap(volume), fs.size // fs.block_size, fs.block_size)
        if count is not None:
            assert sum(end - start for start, end in free(fs)) == count * fs.block_size


def test_a_part_of_the_map_is_the_part_of_the_whole(tmp_path: Path) -> None:
    volume = corpus_file("dfvfs/vss.raw", tmp_path)
    with open_device(volume) as reader:
        fs = filesystem(reader)
        assert fs is not None
        kinds = {}
        for each in fs.allocation():
            for at in range(each.offset, each.end, 512):
                kinds[at] = each.kind
        for offset in range(0, reader.size, 999 * 512):
            at = offset
            for each in fs.allocation(offset, 1500 * 512):
                assert each.offset == at
                assert {kinds[sector] for sector in range(at, each.end, 512)} == {each.kind}
                at = each.end
            assert at == min(offset + 1500 * 512, reader.size)


def test_the_boot_sector_and_its_copy_are_kept(tmp_path: Path) -> None:
    volume = mkntfs(tmp_path / "v", 8 * MIB + 512 * 5)  # does not end with a cluster
    with open_device(volume) as reader:
        fs = filesystem(reader)
        assert fs is not None
        assert fs.size < reader.size
        view = fs.view()
        assert view.pread(512, 0) == reader.pread(512, 0)
        tail = reader.pread(reader.size - fs.size, fs.size)
        assert reader.pread(512, 0) in [tail[at : at + 512] for at in range(0, len(tail), 512)]
        assert view.pread(len(tail), fs.size) == tail
        assert list(view.extents())[-1].kind is ExtentKind.DATA


@pytest.fixture
def windows(tmp_path: Path) -> Path:
    """A volume with what Windows leaves in the root."""
    volume = mkntfs(tmp_path / "windows.img", 32 * MIB)
    ntfs_put(volume, b"p" * 3_000_000, "pagefile.sys", tmp_path)
    ntfs_put(volume, b"kept" * 250_000, "kept.bin", tmp_path)
    ntfs_put(volume, b"s" * 1_000_000, "SwapFile.sys", tmp_path)
    ntfs_put(volume, b"wake" + b"h" * 2_000_000, "hiberfil.sys", tmp_path)
    return volume


def excluded_ranges(fs: FileSystem) -> dict[str, list[tuple[int, int]]]:
    return {
        path: [(each.offset // fs.block_size, each.length // fs.block_size) for each in extents]
        for _, path, extents in fs.excluded(DEFAULT_EXCLUSIONS)
    }


def test_page_swap_and_hibernation_files_are_found_where_ntfscluster_sees_them(windows: Path) -> None:
    with open_device(windows) as reader:
        fs = filesystem(reader)
        assert fs is not None
        assert excluded_ranges(fs) == {
            "\\pagefile.sys": ntfs_runs(windows, "pagefile.sys"),
            "\\swapfile.sys": ntfs_runs(windows, "SwapFile.sys"),
            "\\hiberfil.sys": ntfs_runs(windows, "hiberfil.sys"),
        }


def test_the_view_has_zeros_for_what_is_left_out_and_the_rest_as_it_is(windows: Path) -> None:
    content = windows.read_bytes()
    with open_device(windows) as reader:
        fs = filesystem(reader)
        assert fs is not None
        view = fs.view()
        kinds = dict.fromkeys(ExtentKind, 0)
        for each in view.extents():
            kinds[each.kind] += each.length
            expected = content[each.offset : each.end]
            if each.kind is not ExtentKind.DATA:
                expected = bytes(each.length)
            assert view.pread(each.length, each.offset) == expected
        assert kinds[ExtentKind.EXCLUDED] == sum(
            count * 4096 for runs in excluded_ranges(fs).values() for _, count in runs
        )
        assert view.pread(len(content), 0).count(b"kept" * 1000) == 250
        assert b"p" * 4096 not in view.pread(len(content), 0)
        assert view.metadata.filesystem == "ntfs"
        assert view.metadata.exclusions == ("\\pagefile.sys", "\\swapfile.sys", "\\hiberfil.sys")


def test_what_is_not_excluded_is_kept(windows: Path) -> None:
    content = windows.read_bytes()
    with open_device(windows) as reader:
        fs = filesystem(reader)
        assert fs is not None
        whole = fs.view(exclude=())
        assert b"p" * 2_999_808 in whole.pread(len(content), 0)
        assert ExtentKind.EXCLUDED not in {each.kind for each in whole.extents()}
        one = fs.view(exclude=[Exclusion.SWAP_FILE])
        assert one.metadata.exclusions == ("\\swapfile.sys",)
        everything = fs.view(exclude=(), unused=UnusedPolicy.READ)
        assert everything.pread(len(content), 0) == content
        assert list(everything.extents()) == list(reader.extents())
        assert "nobody promises" in everything.metadata.notes[-1]


def test_a_hibernated_system_is_kept(tmp_path: Path) -> None:
    volume = mkntfs(tmp_path / "v", 16 * MIB)
    ntfs_put(volume, b"HIBR" + b"h" * 2_000_000, "hiberfil.sys", tmp_path)
    with open_device(volume) as reader:
        fs = filesystem(reader)
        assert fs is not None
        view = fs.view()
        assert view.metadata.exclusions == ()
        assert "hiberfil.sys holds a hibernated system and is kept" in view.metadata.notes
        assert b"h" * 1_000_000 in view.pread(view.size, 0)


def test_shadow_storage_is_left_out_whatever_its_initialized_size(tmp_path: Path) -> None:
    """The catalog and the stores of a real volume: Windows never counts what is in them as written."""
    volume = corpus_file("dfvfs/vss.raw", tmp_path)
    content = volume.read_bytes()
    with open_device(volume) as reader:
        fs = filesystem(reader)
        assert fs is not None
        left_out = {path.rsplit("\\", 1)[1]: extents for _, path, extents in fs.excluded(DEFAULT_EXCLUSIONS)}
        assert len(left_out) == 3
        ending = "{3808876b-c176-4e48-b7ae-04046e6cc752}"
        assert all(name.endswith(ending) for name in left_out)
        # The catalog is where the volume's VSS header says it is.
        catalog = int.from_bytes(content[0x1E30:0x1E38], "little")
        assert left_out[ending][0].offset == catalog
        view = fs.view()
        assert view.pread(0x4000, catalog) == bytes(0x4000)
        assert content[catalog : catalog + 16] == bytes.fromhex("6b87083876c1484eb7ae04046e6cc752")
        # And nothing points at it any more.
        assert view.pread(8, 0x1E30) == bytes(8)
        assert view.pread(0x1E30, 0) == content[:0x1E30]
        assert view.pread(64, 0x1E38) == content[0x1E38 : 0x1E38 + 64]
        assert view.pread(3, 0x1E2F) == content[0x1E2F:0x1E30] + bytes(2)
        assert any("pointer to the catalog" in note for note in view.metadata.notes)
        kept = fs.view(exclude={*DEFAULT_EXCLUSIONS} - {Exclusion.SHADOW_STORAGE})
        assert kept.pread(512, 0x1E00) == content[0x1E00:0x2000]
        assert kept.pread(0x4000, catalog) == content[catalog : catalog + 0x4000]


@pytest.mark.posix("the reader of others is built for Linux")
def test_another_reader_finds_no_shadow_copies_where_their_storage_is_left_out(tmp_path: Path) -> None:
    library: Any = importlib.import_module("pyvshadow")
    copy = tmp_path / "copy"
    kept = {*DEFAULT_EXCLUSIONS} - {Exclusion.SHADOW_STORAGE}
    with open_device(corpus_file("dfvfs/vss.raw", tmp_path)) as reader:
        fs = filesystem(reader)
        assert fs is not None
        for exclude, count in ((DEFAULT_EXCLUSIONS, 0), (kept, 2)):
            restore_image(fs.view(exclude=exclude), copy, replace=True)
            volume = library.volume()
            volume.open(str(copy))
            assert volume.number_of_stores == count
            volume.close()


def test_shadow_storage_is_found_by_its_catalog_where_its_folder_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = corpus_file("dfvfs/vss.raw", tmp_path)
    with open_device(volume) as reader:
        whole = filesystem(reader)
        assert whole is not None
        named = {path: extents for _, path, extents in whole.excluded(DEFAULT_EXCLUSIONS)}

    def damaged(*given: object) -> dict[int, str]:
        raise CorruptImageError("NTFS: $I30: its entries leave the node")

    monkeypatch.setattr(ntfs.Ntfs, "_named_stores", damaged)
    content = bytearray(volume.read_bytes())
    fs = filesystem(MemoryReader(bytes(content)))
    assert fs is not None
    found = {path: extents for _, path, extents in fs.excluded(DEFAULT_EXCLUSIONS)}
    assert len(found) == 2  # the catalog itself has a name alone
    assert all(named[path] == extents for path, extents in found.items())
    assert any("by its catalog alone" in note for note in fs.notes)
    # References to files that are not those stores: both are swapped.
    catalog = int.from_bytes(content[0x1E30:0x1E38], "little")
    entries = [at for at in range(catalog + 128, catalog + 16384, 128) if content[at] == 3]
    first, second = (slice(at + 56, at + 64) for at in entries)
    content[first], content[second] = content[second], content[first]
    fs = filesystem(MemoryReader(bytes(content)))
    assert fs is not None
    assert not fs.excluded(DEFAULT_EXCLUSIONS)


def volume_flags_at(content: bytearray) -> int:
    """Where the flags of $Volume are: in its $VOLUME_INFORMATION, record 3."""
    import struct

    mft = struct.unpack_from("<Q", content, 0x30)[0] * 4096
    at = mft + 3 * 1024 + struct.unpack_from("<H", content, mft + 3 * 1024 + 20)[0]
    while struct.unpack_from("<I", content, at)[0] != 0x70:
        at += struct.unpack_from("<I", content, at + 4)[0]
    return int(at + struct.unpack_from("<H", content, at + 20)[0] + 10)


def test_a_dirty_volume_keeps_every_block(windows: Path) -> None:
    content = bytearray(windows.read_bytes())
    content[volume_flags_at(content)] |= 1
    fs = found(bytes(content))
    assert fs.dirty
    assert fs.doubt == "the volume is marked dirty: it needs chkdsk"
    assert [each.kind for each in fs.allocation()] == [ExtentKind.DATA]
    view = fs.view()
    assert view.pread(len(content), 0) == content
    assert view.metadata.exclusions == ()
    assert "every block is kept" in view.metadata.notes[-1]


def test_it_is_dirty_as_ntfsfix_leaves_it(tmp_path: Path) -> None:
    volume = mkntfs(tmp_path / "v", 8 * MIB)
    for options, dirty in (((), True), (("--clear-dirty",), False)):
        run_quietly("ntfsfix", *options, volume)
        fs = found(volume.read_bytes())
        assert fs.dirty is dirty
        assert bool(fs.doubt) is dirty


@pytest.mark.parametrize(
    ("first", "second", "doubt"),
    [
        (restart_page(closed=True), restart_page(closed=True), ""),
        (restart_page(closed=False), restart_page(closed=False), "open"),
        (restart_page(closed=True, lsn=4), restart_page(closed=False, lsn=5), "open"),
        (restart_page(closed=False, lsn=4), restart_page(closed=True, lsn=5), ""),
        (bytes(4096), restart_page(closed=True), ""),
        (bytes(4096), bytes(4096), "no restart page"),
        (b"CHKD" + bytes(4092), restart_page(closed=True), "chkdsk"),
        (restart_page(closed=True)[:-1] + b"\1", restart_page(closed=False, lsn=1), "open"),
    ],
)
def test_an_open_log_keeps_every_block(windows: Path, first: bytes, second: bytes, doubt: str) -> None:
    content = bytearray(windows.read_bytes())
    ((lcn, _),) = ntfs_runs(windows, "$LogFile")
    content[lcn * 4096 : lcn * 4096 + 8192] = first + second
    fs = found(bytes(content))
    assert doubt in fs.doubt
    assert bool(fs.doubt) == bool(doubt) == fs.dirty
    assert bool(free(fs)) != bool(doubt)


def test_bad_clusters_are_left_out(tmp_path: Path) -> None:
    """What mkntfs finds by reading; here $BadClus gets a run by hand, and $Bitmap the bits."""
    volume = mkntfs(tmp_path / "v", 8 * MIB)
    content = bytearray(volume.read_bytes())
    mft = int.from_bytes(content[0x30:0x38], "little") * 4096
    record = mft + 8 * 1024
    clusters = (len(content) // 512 - 1) // 8
    name = "$Bad".encode("utf-16-le")
    head = content.rindex(name, record, record + 1024) - 64  # the attribute is the record's last one
    runs = head + int.from_bytes(content[head + 32 : head + 34], "little")
    assert content[runs] & 0xF0 == 0, "one sparse run, as long as the volume"
    bad_at = clusters - 10
    new = b"\x02" + bad_at.to_bytes(2, "little") + b"\x21\x03" + bad_at.to_bytes(2, "little")
    new += b"\x01" + bytes([clusters - bad_at - 3]) + bytes(7)
    content[runs : runs + 16] = new
    length = runs + 16 - head
    content[head + 4 : head + 8] = length.to_bytes(4, "little")
    content[head + length : head + length + 8] = b"\xff\xff\xff\xff" + bytes(4)
    content[record + 24 : record + 28] = (head + length + 8 - record).to_bytes(4, "little")
    ((lcn, _),) = ntfs_runs(volume, "$Bitmap")
    before = free(found(volume.read_bytes()))
    for cluster in range(bad_at, bad_at + 3):
        content[lcn * 4096 + cluster // 8] |= 1 << cluster % 8
    fs = found(bytes(content))
    assert fs.doubt == ""
    assert "12288 bytes in clusters that NTFS knows as bad" in fs.notes[0]
    assert free(fs) == before
    # They are where ntfscluster sees them.
    volume.write_bytes(content)
    seen = [
        cluster
        for cluster in range(bad_at - 2, bad_at + 5)
        if "$Bad" in run_quietly("ntfscluster", "--cluster", f"{cluster}-{cluster}", volume)
    ]
    assert seen == [bad_at, bad_at + 1, bad_at + 2]


def metadata_places(content: bytes) -> list[int]:
    """Every byte of the boot sector's numbers and of the records that lead to the map."""
    mft = int.from_bytes(content[0x30:0x38], "little") * 4096
    places = [*range(3, 84), 510, 511]
    for number in (0, 2, 3, 6, 8):
        record = mft + number * 1024
        used = int.from_bytes(content[record + 24 : record + 28], "little")
        places += [*range(record, record + used), record + 510, record + 511, record + 1022, record + 1023]
    return places


FLIPS = [0xFF, *(pytest.param(1 << bit, marks=pytest.mark.long) for bit in range(8))]


@pytest.mark.parametrize("flip", FLIPS)
def test_every_mutation_on_the_way_to_the_map_gives_the_right_map_or_a_doubt(
    flip: int, tmp_path: Path
) -> None:
    volume = mkntfs(tmp_path / "v", 2 * MIB)
    for index in range(3):
        ntfs_put(volume, bytes([index]) * 100_000, f"f{index}", tmp_path)
    good = volume.read_bytes()
    truth = free(found(good))
    assert truth
    doubted = 0
    for place in metadata_places(good):
        fs = filesystem(Patched(good, place, flip))
        if fs is None:
            assert place < 512
            continue
        free_now = free(fs)
        doubted += bool(fs.doubt)
        if fs.doubt:
            assert free_now == []
        else:
            # The number of sectors may be a smaller one: what follows is kept.
            assert set(sectors(free_now)) <= set(sectors(truth)), f"byte {place}"
    assert doubted > 80


def sectors(ranges: list[tuple[int, int]]) -> list[int]:
    return [at for start, end in ranges for at in range(start, end, 512)]


@pytest.mark.parametrize("flip", FLIPS)
def test_every_mutation_of_what_leads_to_an_exclusion_is_borne(flip: int, windows: Path) -> None:
    """A directory or record that is damaged hides its file, and takes no other along."""
    content = windows.read_bytes()
    mft = int.from_bytes(content[0x30:0x38], "little") * 4096
    page_file = content.index("pagefile.sys".encode("utf-16-le"), mft) // 1024 * 1024
    assert content[page_file : page_file + 4] == b"FILE"
    root = mft + 5 * 1024
    (index,) = (
        m.start()
        for m in re.finditer(b"INDX", content)
        if m.start() % 4096 == 0 and b"k\0e\0p\0t" in content[m.start() : m.start() + 4096]
    )
    with open_device(windows) as reader:
        fs = filesystem(reader)
        assert fs is not None
        truth = {
            path: set(sectors([(each.offset, each.end) for each in extents]))
            for _, path, extents in fs.excluded(DEFAULT_EXCLUSIONS)
        }
    everything = set[int]().union(*truth.values())
    # Nothing in NTFS guards the number of a run's first cluster.
    runs = content.index(b"\x80\0\0\0", page_file + 56)
    runs += int.from_bytes(content[runs + 32 : runs + 34], "little")
    places = [at for start in (root, page_file, index) for at in range(start, start + 512, 3)]
    places += range(index + 512, index + 1536, 7)
    missing = 0
    for place in places:
        fs = filesystem(Patched(content, place, flip))
        assert fs is not None
        assert fs.doubt == ""
        found = [each for _, _, extents in fs.excluded(DEFAULT_EXCLUSIONS) for each in extents]
        now = set(sectors([(each.offset, each.end) for each in found]))
        assert now <= everything or runs <= place < runs + 8, place
        missing += now < everything
    assert missing > 10


def test_a_volume_cut_short_keeps_what_is_there(windows: Path) -> None:
    content = windows.read_bytes()
    for size in (512, 4096, 100_000, len(content) // 2, len(content) - 4096):
        fs = found(content[:size])
        assert "on a volume of" in fs.doubt or fs.doubt
        assert free(fs) == []
        assert fs.view().pread(size, 0) == content[:size]


def test_a_page_of_the_map_that_cannot_be_read_counts_as_used(windows: Path) -> None:
    from vsssnap.blocks.extent import Extent

    content = windows.read_bytes()
    ((lcn, _),) = ntfs_runs(windows, "$Bitmap")
    with open_device(windows) as reader:
        fs = filesystem(reader)
        assert fs is not None
    bad = Extent(lcn * 4096, 4096, ExtentKind.UNREADABLE)
    extents = [Extent(0, bad.offset), bad, Extent(bad.end, len(content) - bad.end)]
    damaged = filesystem(MemoryReader(content, extents))
    assert damaged is not None
    assert free(damaged) == []


def test_memory_does_not_grow_with_the_volume(tmp_path: Path) -> None:
    import tracemalloc

    volume = mkntfs(tmp_path / "large.img", 1 << 40, "-c", "4096")  # sparse; $Bitmap has 32 MiB
    with open_device(volume) as reader:
        tracemalloc.start()
        fs = filesystem(reader)
        assert fs is not None
        kept = sum(each.length for each in fs.view().extents() if each.kind is ExtentKind.DATA)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert 32 * MIB < kept < 200 * MIB
    assert peak < 2 * MIB


def test_a_boot_sector_of_something_else_is_none() -> None:
    assert filesystem(MemoryReader(bytes(1 << 16))) is None
    assert filesystem(MemoryReader(b"")) is None
