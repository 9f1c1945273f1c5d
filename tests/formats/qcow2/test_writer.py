from __future__ import annotations

import hashlib
import random
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import qcow2_images as images
from vsssnap import create_image, open_image, save_image, verify_image
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import CorruptImageError, ParentMismatchError, UsageError
from vsssnap.formats import MemoryStorage, PipeStorage
from vsssnap.formats.base import Depth, ImageReader, WriteOrder
from vsssnap.formats.qcow2 import Qcow2Format, Qcow2Options, Qcow2Reader
from vsssnap.formats.raw import RawFormat, RawReader
from vsssnap.metadata import ImageMetadata
from vsssnap.testing.formats import check_format
from vsssnap.testing.memory import MemoryReader
from vsssnap.testing.powercut import PowerCut

KIB = 1 << 10
MIB = 1 << 20
KINDS = [ExtentKind.ZERO, ExtentKind.HOLE, ExtentKind.EXCLUDED, ExtentKind.UNREADABLE]


def findings(reader: Qcow2Reader) -> list[str]:
    return [str(found) for found in reader.verify(Depth.STRUCTURE, lambda count: None)]


def test_plain_images_keep_the_contract() -> None:
    check_format(Qcow2Format(), options=[Qcow2Options(cluster_size=4096)])


def test_compressed_images_keep_the_contract() -> None:
    check_format(
        Qcow2Format(),
        options=[Qcow2Options(compression="zstd"), Qcow2Options(compression="zlib", cluster_size=16 * KIB)],
    )


@pytest.mark.long
@pytest.mark.parametrize("cluster_size", [1 << bits for bits in range(9, 22)])
@pytest.mark.parametrize("compression", ["none", "zstd", "zlib"])
def test_every_cluster_size_keeps_the_contract(cluster_size: int, compression: str) -> None:
    options = Qcow2Options(cluster_size=cluster_size, compression=compression)  # type: ignore[arg-type]
    check_format(Qcow2Format(), options=[options])


# The model: random blocks and marks over a chain of three, each a bytearray.

MODEL_SIZE = 2 * MIB + 128 * KIB - 3 * 512
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 2), st.integers(0, 255), st.integers(0, 1 << 30)),
        st.tuples(
            st.just("mark"), st.integers(0, MODEL_SIZE - 1), st.integers(1, MIB), st.sampled_from(KINDS)
        ),
    ),
    max_size=6,
)


def block(behind: bytes, value: int, seed: int) -> bytes:
    """A unit with what it may hold: the parent's bytes, zeros and data, by the cluster."""
    dice = random.Random(seed)
    result = bytearray()
    for at in range(0, len(behind), 4096):
        piece = behind[at : at + 4096]
        choice = dice.random()
        if choice < 0.2:
            piece = bytes(len(piece))
        elif choice < 0.3:
            piece = bytes([value]) * len(piece)
        elif choice < 0.35:
            piece = dice.randbytes(len(piece))
        elif choice < 0.4:
            piece = piece[:700] + bytes([value]) * max(0, len(piece) - 700)
        result += piece
    return bytes(result)


@given(st.lists(steps, min_size=3, max_size=3), st.sampled_from(["none", "zstd", "zlib"]), st.booleans())
def test_chain_of_three_reads_as_the_model(
    layers: list[list[tuple[str, int, int, object]]], compression: str, small: bool
) -> None:
    options = Qcow2Options(
        cluster_size=4096 if small else 64 * KIB,
        compression=compression,  # type: ignore[arg-type]
    )
    folder = images.Folder({})
    model = bytearray(MODEL_SIZE)
    parent = None
    for number, layer in enumerate(layers):
        storage = MemoryStorage(name=f"{number}")
        writer = Qcow2Format().create(storage, MODEL_SIZE, options=options, parent=parent)
        before = bytes(model)
        if writer.write_order is WriteOrder.ASCENDING:
            layer = ascending(layer)
        for what, first, second, third in layer:
            if what == "write":
                at = first * writer.unit
                length = min(writer.unit, MODEL_SIZE - at)
                data = block(before[at : at + length], second, int(third))  # type: ignore[call-overload]
                writer.pwrite(memoryview(data), at)
                model[at : at + length] = data
            else:
                length = min(second, MODEL_SIZE - first)
                assert isinstance(third, ExtentKind)
                writer.mark(Extent(first, length, third))
                model[first : first + length] = bytes(length)
        images.finish(writer)
        if parent is not None:
            parent.close()
        folder.files[f"{number}"] = storage.data
        parent = folder.open(f"{number}")
        assert isinstance(parent, Qcow2Reader)
        assert parent.readall() == model
        assert not findings(parent)
        for extent in parent.extents():
            if extent.reads_as_zero:
                assert model.startswith(bytes(extent.length), extent.offset)


def ascending(layer: list[tuple[str, int, int, object]]) -> list[tuple[str, int, int, object]]:
    """The steps that a writer in order takes: each place once, by rising offset."""
    end, result = 0, []
    for step in sorted(layer, key=lambda item: item[1] * MIB if item[0] == "write" else item[1]):
        first = step[1] * MIB if step[0] == "write" else step[1]
        if first >= end:
            result.append(step)
            length = MIB if step[0] == "write" else step[2]
            end = first + length
    return result


def test_blocks_from_several_threads_make_the_volume() -> None:
    volume = random.Random(3).randbytes(24 * MIB)
    storage = MemoryStorage()
    writer = Qcow2Format().create(storage, len(volume), options=Qcow2Options(cluster_size=4096))
    places = list(range(0, len(volume), writer.unit))
    random.Random(4).shuffle(places)

    def work(mine: list[int]) -> None:
        for at in mine:
            writer.pwrite(memoryview(volume)[at : at + writer.unit], at)

    threads = [threading.Thread(target=work, args=(places[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    images.finish(writer)

    reader = images.opened(storage.data)
    assert reader.readall() == volume
    assert not findings(reader)


@pytest.mark.parametrize("compression", ["none", "zlib"])
def test_tables_that_do_not_fit_in_memory_go_to_the_file_and_back(
    compression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vsssnap.formats.qcow2 import mapwriter

    monkeypatch.setattr(mapwriter, "_KEPT", 0)  # four tables of 32 KiB of the disk each
    volume = bytearray(random.Random(3).randbytes(4 * MIB))
    for at in range(0, len(volume), 96 * KIB):
        volume[at : at + 32 * KIB] = bytes(32 * KIB)
    path = tmp_path / "image.qcow2"
    options = Qcow2Options(cluster_size=512, compression=compression)  # type: ignore[arg-type]
    writer = create_image(path, len(volume), options=options)
    places = list(range(0, len(volume), 8 * KIB if compression == "none" else MIB))
    if compression == "none":
        random.Random(4).shuffle(places)
    step = len(volume) // len(places)
    for at in places:
        writer.pwrite(memoryview(volume)[at : at + step], at)
    writer.finish()

    with open_image(path) as reader:
        assert reader.readall() == volume
    assert verify_image(path).ok


# Children.


def parent_of(volume: bytes, name: str = "base") -> tuple[images.Folder, Qcow2Reader]:
    folder = images.Folder({name: images.write(volume, Qcow2Options(cluster_size=4096))})
    reader = folder.open(name)
    assert isinstance(reader, Qcow2Reader)
    return folder, reader


def test_child_stores_only_the_clusters_that_differ() -> None:
    base = random.Random(1).randbytes(8 * MIB)
    now = bytearray(base)
    now[3 * MIB + 5] ^= 1
    now[6 * MIB : 6 * MIB + 64 * KIB] = bytes(64 * KIB)  # zero now: a flag, no data
    folder, parent = parent_of(base)

    data = images.write(now, parent=parent)

    assert len(data) < 64 * KIB * 8
    assert images.get(data, images.l2_entry_at(data, 6 * 16)) == 1
    with images.opened(data, folder) as child:
        assert child.readall() == now


def test_child_of_a_shorter_parent_has_zeros_behind_it() -> None:
    base = b"\x11" * (MIB + 512)
    folder, parent = parent_of(base)
    volume = base + bytes(MIB - 512)
    with images.opened(images.write(volume, parent=parent), folder) as child:
        assert child.readall() == volume
        assert [(e.offset, e.length, e.kind.value) for e in child.extents()][-1][2] == "zero"


def test_what_is_not_named_is_as_in_the_parent() -> None:
    base = random.Random(1).randbytes(2 * MIB)
    folder, parent = parent_of(base)
    storage = MemoryStorage()
    writer = Qcow2Format().create(storage, len(base), parent=parent)
    writer.mark(Extent(MIB + 100, 1000, ExtentKind.HOLE))
    images.finish(writer)

    with images.opened(storage.data, folder) as child:
        assert child.readall() == base[: MIB + 100] + bytes(1000) + base[MIB + 1100 :]


def test_marks_of_neighbouring_parts_become_one_zero_cluster() -> None:
    base = random.Random(1).randbytes(2 * MIB)
    folder, parent = parent_of(base)
    storage = MemoryStorage()
    writer = Qcow2Format().create(storage, len(base), parent=parent)
    writer.mark(Extent(MIB + 100, 64 * KIB - 100, ExtentKind.HOLE))
    writer.mark(Extent(MIB, 100, ExtentKind.ZERO))
    images.finish(writer)

    assert images.get(storage.data, images.l2_entry_at(storage.data, 16)) == 1
    with images.opened(storage.data, folder) as child:
        assert child.readall() == base[:MIB] + bytes(64 * KIB) + base[MIB + 64 * KIB :]


def test_child_of_a_list_of_changes(tmp_path: Path) -> None:
    volume = bytearray(random.Random(1).randbytes(6 * MIB))
    save_image(MemoryReader(bytes(volume)), tmp_path / "base.qcow2")
    volume[3 * MIB + 100 : 3 * MIB + 200] = bytes(100)
    with open_image(tmp_path / "base.qcow2") as parent:
        report = save_image(
            MemoryReader(bytes(volume)),
            tmp_path / "child.qcow2",
            parent=parent,
            changes=[Extent(3 * MIB + 100, 100)],
        )
    assert report.unchanged == 5 * MIB
    with open_image(tmp_path / "child.qcow2") as child:
        assert child.readall() == volume


def test_unreadable_ranges_of_a_parent_are_stored_or_zero() -> None:
    class Lost(Qcow2Reader):
        def _extents(self, offset: int, length: int) -> Iterator[Extent]:
            for extent in super()._extents(offset, length):
                yield Extent(extent.offset, extent.length, ExtentKind.UNREADABLE)

    base = b"\1" * MIB
    folder, parent = parent_of(base)
    parent.__class__ = Lost
    volume = base[: MIB // 2] + bytes(MIB // 2)
    with images.opened(images.write(volume, parent=parent), folder) as child:
        assert child.readall() == volume


@pytest.mark.posix("no file there has a colon in its name")
def test_parent_is_recorded_by_its_path_from_the_folder_of_the_child(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "here").mkdir()
    volume = random.Random(1).randbytes(MIB)
    save_image(MemoryReader(volume), tmp_path / "base" / "a:b.qcow2")
    with open_image(tmp_path / "base" / "a:b.qcow2") as parent:
        save_image(MemoryReader(volume), tmp_path / "here" / "child.qcow2", parent=parent)
        save_image(MemoryReader(volume), tmp_path / "base" / "beside.qcow2", parent=parent)
    with open_image(tmp_path / "here" / "child.qcow2") as child:
        assert child.info()["parents"] == ["../base/a:b.qcow2"]
        assert child.readall() == volume
        assert len(child.origins) == 2
    with open_image(tmp_path / "base" / "beside.qcow2") as child:
        assert child.info()["parents"] == ["./a:b.qcow2"]  # "a:" would be a protocol


def test_another_image_in_the_place_of_the_parent_is_refused() -> None:
    folder, parent = parent_of(b"\1" * MIB)
    data = images.write(b"\2" * MIB, parent=parent)
    folder.files["base"] = images.write(b"\1" * MIB, Qcow2Options(cluster_size=4096))  # the same bytes
    with pytest.raises(ParentMismatchError, match="was made against qcow2:"):
        images.opened(data, folder)


def test_raw_parent_is_held_against_its_size() -> None:
    base = RawFormat().open(MemoryStorage(b"\1" * MIB, "base"))
    base.path = "base"
    data = images.write(b"\2" * MIB, parent=base)
    folder = images.Folder({"base": b"\1" * MIB})
    images.opened(data, folder).close()
    assert folder.asked == [(("base",), "raw")]
    folder.files["base"] = b"\1" * (MIB + 512)
    with pytest.raises(ParentMismatchError, match="of 1048576 bytes; base is without identity, of 1049088"):
        images.opened(data, folder)


def test_image_that_was_rebased_since_is_not_held_against_its_first_parent() -> None:
    folder, parent = parent_of(b"\1" * MIB)
    data = images.write(b"\2" * MIB, parent=parent)
    name = images.get(data, images.BACKING_OFFSET)
    data[name : name + 4] = b"next"  # as qemu-img rebase -u does, which keeps unknown extensions
    folder.files["next"] = images.write(b"\3" * MIB)
    images.opened(data, folder).close()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Foreign(), "vsnap image cannot be the parent"),
        (lambda: RawFormat().open(MemoryStorage(bytes(512))), "the parent has no path"),
    ],
)
def test_parent_that_cannot_be_named_is_refused(make: Callable[[], ImageReader], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Qcow2Format().create(MemoryStorage(), MIB, parent=make())


@pytest.mark.parametrize(
    ("format", "qemus"), [("vhd", "vpc"), ("vhdx", "vhdx"), ("vmdk", "vmdk"), ("raw", "raw")]
)
def test_format_of_the_parent_is_recorded_in_words_of_qemu(
    format: str, qemus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RawReader, "format", format)
    base = RawFormat().open(MemoryStorage(bytes(MIB), "base"))
    base.path = "base"
    data = images.write(b"\2" * MIB, parent=base)
    asked = []

    def resolve(candidates: Sequence[str], /, *, format: str | None = None) -> ImageReader:
        asked.append((*candidates, format))
        return base

    with images.opened(data, resolve) as child:
        assert child.info()["backing_format"] == qemus
        assert child.pread(3, 0) == b"\2\2\2"
    assert asked == [("base", format)]


class Foreign(Qcow2Reader):
    """Looks like an image of another format."""

    format = "vsnap"

    def __init__(self) -> None:
        """Nothing to open."""


def test_long_name_is_refused() -> None:
    _, parent = parent_of(bytes(MIB))
    with pytest.raises(UsageError, match="name has 400 bytes, there is room for"):
        Qcow2Format().create(
            MemoryStorage(),
            MIB,
            options=Qcow2Options(cluster_size=512, backing_name="x" * 400),
            parent=parent,
        )
    with pytest.raises(UsageError, match="there is room for 1023"):
        Qcow2Format().create(
            MemoryStorage(), MIB, options=Qcow2Options(backing_name="x" * 1024), parent=parent
        )


# What it looks like.


def test_same_volume_and_identity_give_the_same_bytes() -> None:
    volume = random.Random(1).randbytes(MIB) * 3
    for compression in ("none", "zstd", "zlib"):
        options = Qcow2Options(compression=compression, identity=uuid.UUID(int=7))
        first, second = (hashlib.sha256(images.write(volume, options)).hexdigest() for _ in range(2))
        assert first == second


def test_compressed_clusters_lie_one_behind_the_other() -> None:
    volume = b"".join(bytes([n]) * (64 * KIB) for n in range(1, 129))
    data = images.write(volume, Qcow2Options(compression="zstd"))
    entries = [images.get(data, images.l2_entry_at(data, n)) for n in range(128)]
    assert all(entry >> 62 == 1 for entry in entries)
    places = [entry & (1 << 54) - 1 for entry in entries]  # cluster_bits 16: 62 - 8
    assert max(places) - min(places) < 64 * KIB
    assert len(data) == 6 * 64 * KIB  # header, L1, L2, data, refcount block and table


def test_what_does_not_shrink_is_stored_plain() -> None:
    volume = random.Random(1).randbytes(64 * KIB)
    data = images.write(volume, Qcow2Options(compression="zlib"))
    entry = images.get(data, images.l2_entry_at(data, 0))
    assert entry >> 62 == 0b10
    place = entry & 0x00FF_FFFF_FFFF_FE00
    assert data[place : place + len(volume)] == volume


def test_refcount_of_a_cluster_never_leaves_its_16_bits() -> None:
    # 2 MiB of one byte take some 76 bytes: over 27 thousand clusters share one; 65535 is far, so count down.
    from vsssnap.formats.qcow2 import allocation

    allocator = allocation.Allocator(MemoryStorage(), 2 * MIB)
    allocator.take(1)
    places = [allocator.pack(8) for _ in range(65537)]
    assert places[65534] // (2 * MIB) == 1
    assert places[65535] == 4 * MIB


def test_nothing_is_stored_of_an_empty_volume() -> None:
    storage = MemoryStorage()
    writer = Qcow2Format().create(storage, 8 << 40)
    writer.mark(Extent(0, 8 << 40, ExtentKind.ZERO))
    images.finish(writer)
    assert storage.size < MIB
    with images.opened(storage.data) as reader:
        assert list(reader.extents()) == [Extent(0, 8 << 40, ExtentKind.ZERO)]


def test_what_it_cannot_say_is_counted() -> None:
    writer = Qcow2Format().create(MemoryStorage(), MIB)
    writer.mark(Extent(0, 10, ExtentKind.ZERO))
    writer.mark(Extent(10, 20, ExtentKind.HOLE))
    writer.mark(Extent(30, 30, ExtentKind.EXCLUDED))
    writer.mark(Extent(60, 40, ExtentKind.UNREADABLE))
    assert writer.flattened() == {"excluded": 30, "hole": 20, "unreadable": 40}


def test_sidecar_keeps_what_qcow2_cannot(tmp_path: Path) -> None:
    volume = random.Random(1).randbytes(2 * MIB)
    metadata = ImageMetadata(volume="C:", user={"n": 1})
    extents = [Extent(0, MIB), Extent(MIB, 64 * KIB, ExtentKind.HOLE), Extent(MIB + 64 * KIB, MIB - 64 * KIB)]
    path = tmp_path / "image.qcow2"
    report = save_image(
        MemoryReader(volume, extents=extents),
        path,
        options=Qcow2Options(compression="zstd", sidecar=True),
        metadata=metadata,
    )
    assert report.flattened == {}
    with open_image(path) as image:
        assert image.metadata == metadata
        assert Extent(MIB, 64 * KIB, ExtentKind.HOLE) in list(image.extents())
    assert verify_image(path, depth=Depth.CONTENT).ok
    data = bytearray(path.read_bytes())
    data[data.index(volume[5000:6000])] ^= 1  # a payload that did not shrink, so it lies there as it is
    path.write_bytes(data)
    assert verify_image(path, depth=Depth.STRUCTURE).ok
    (found,) = verify_image(path).findings
    assert found.extent is not None
    assert found.extent.offset <= 5000 < found.extent.end


@pytest.mark.parametrize(("packed", "reached"), [(False, Depth.CONTENT), (True, Depth.STRUCTURE)])
def test_sidecar_is_used_by_default_where_nothing_is_decompressed(
    packed: bool, reached: Depth, tmp_path: Path
) -> None:
    path = tmp_path / "image.qcow2"
    options = Qcow2Options(compression="zstd" if packed else "none", sidecar=True)
    save_image(MemoryReader(b"text" * (MIB // 4)), path, options=options)
    assert verify_image(path).depth is reached
    assert verify_image(path, depth=Depth.CONTENT).ok


# Refusals.


def test_pipe_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot seek, and the header of a QCOW2 image is written last"):
        Qcow2Format().create(PipeStorage(-1, "pipe", owned=False), MIB)


@pytest.mark.parametrize(
    ("options", "size", "match"),
    [
        (Qcow2Options(cluster_size=256), MIB, "cluster_size is 256"),
        (Qcow2Options(cluster_size=4 * MIB), MIB, "cluster_size is 4194304"),
        (Qcow2Options(cluster_size=5000), MIB, "cluster_size is 5000"),
        (Qcow2Options(compression="lzma"), MIB, "compression is 'lzma'"),  # type: ignore[arg-type]
        (Qcow2Options(level=3), MIB, "nothing is compressed"),
        (Qcow2Options(level=10, compression="zlib"), MIB, r"level is 10, outside 1\.\.9"),
        (Qcow2Options(level=20, compression="zstd"), MIB, r"level is 20, outside -50\.\.19"),
        (Qcow2Options(backing_name="x"), MIB, "no parent"),
        (Qcow2Options(), 513, "no multiple of 512"),
        (Qcow2Options(cluster_size=512), 128 << 30, "clusters of 512 bytes hold volumes up to"),
        (Qcow2Options(), 3 << 50, "hold volumes up to"),
    ],
)
def test_what_qcow2_cannot_hold_is_refused(options: Qcow2Options, size: int, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Qcow2Format().create(MemoryStorage(), size, options=options)


def test_storage_with_content_is_refused() -> None:
    with pytest.raises(UsageError, match="not empty: it has 3 bytes"):
        Qcow2Format().create(MemoryStorage(b"abc"), MIB)


@pytest.mark.parametrize(("at", "length"), [(-4096, 4096), (MIB, 512), (512, 4096), (0, 4608)])
def test_block_that_is_no_whole_clusters_is_refused(at: int, length: int) -> None:
    writer = Qcow2Format().create(MemoryStorage(), MIB, options=Qcow2Options(cluster_size=4096))
    with pytest.raises(UsageError):
        writer.pwrite(memoryview(bytes(length)), at)


def test_compressed_image_refuses_to_go_back() -> None:
    writer = Qcow2Format().create(MemoryStorage(), 4 * MIB, options=Qcow2Options(compression="zstd"))
    writer.pwrite(memoryview(bytes(MIB)), 2 * MIB)
    with pytest.raises(UsageError, match="got bytes at 1048576 after byte 3145728"):
        writer.pwrite(memoryview(bytes(MIB)), MIB)
    with pytest.raises(UsageError, match="got bytes at 0"):
        writer.mark(Extent(0, 5, ExtentKind.ZERO))


def test_child_cut_off_by_a_power_cut_is_refused_or_whole() -> None:
    folder, parent = parent_of(random.Random(5).randbytes(2 * MIB))
    volume = random.Random(6).randbytes(MIB) + bytes(MIB)
    storage = PowerCut(name="child")
    # A name that reaches into the second sector.
    options = Qcow2Options(backing_name="./" * 200 + "base", compression="zstd")
    writer = Qcow2Format().create(storage, len(volume), options=options, parent=parent)
    images.put(writer, volume)
    images.finish(writer)
    folder.files["./" * 200 + "base"] = folder.files["base"]
    complete = 0
    for cut in storage.cuts(subsets=3, torn=True, seed=1):
        try:
            reader = images.opened(cut.storage.data, folder)
        except CorruptImageError:
            continue
        complete += 1
        assert reader.readall() == volume, cut.description
    assert complete
