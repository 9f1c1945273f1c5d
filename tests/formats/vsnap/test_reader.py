"""Huge, odd and busy images."""

from __future__ import annotations

import dataclasses
import random
import threading
import tracemalloc
from collections.abc import Sequence

import pytest

from vsnap_images import FORMAT, SMALL, documents, every_kind, findings, image_of, noise, opened
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import ClosedError, CorruptImageError, UnsupportedFeatureError, UsageError
from vsssnap.formats import MemoryStorage
from vsssnap.formats.base import Depth
from vsssnap.formats.vsnap import VsnapOptions
from vsssnap.formats.vsnap.codec import raw_frame
from vsssnap.metadata import ImageMetadata

TIB = 1 << 40


def sparse(size: int, places: list[int]) -> bytes:
    storage = MemoryStorage()
    writer = FORMAT.create(storage, size)
    for place in places:
        unit = place - place % writer.unit
        data = bytearray(min(writer.unit, size - unit))
        data[place - unit] = 7
        writer.store(writer.encode(memoryview(data), unit))
    writer.finish(ImageMetadata())
    writer.close()
    return bytes(storage.data)


@pytest.mark.parametrize("size", [8 * TIB, 64 * TIB, 64 * TIB - 1])
def test_huge_sparse_volume_costs_kilobytes(size: int) -> None:
    places = [0, size // 3, size // 2, size - 1]
    file = sparse(size, places)
    assert len(file) < 200_000
    with opened(file) as reader:
        assert [e.offset for e in reader.extents() if e.kind is ExtentKind.DATA] == [
            place - place % 65536 for place in places
        ]
        assert all(reader.pread(1, place) == b"\7" for place in places)
        assert findings(reader, Depth.CONTENT) == []
    with opened(file, recover=True) as reader:
        assert all(reader.pread(1, place) == b"\7" for place in places)


def test_empty_huge_volume_has_no_pages() -> None:
    assert len(sparse(64 * TIB, [])) < 10_000


@pytest.mark.parametrize("size", [0, 1, 511, 65535, 65536, 65537, (1 << 20) - 1, (1 << 20) + 1])
@pytest.mark.parametrize(
    "options",
    [
        VsnapOptions(),
        VsnapOptions(chunk_size=1 << 16, cell_size=1 << 12),
        VsnapOptions(chunk_size=1 << 24, cell_size=1 << 12, segment_size=1 << 23),
        VsnapOptions(chunk_size=1 << 24, cell_size=1 << 24),
    ],
    ids=["default", "small", "large", "one-cell"],
)
def test_odd_sizes_and_grids(size: int, options: VsnapOptions) -> None:
    data = noise(1, size)
    with opened(image_of(data, options=options)) as reader:
        assert reader.pread(size + 5, 0) == data
        assert reader.pread(3, max(0, size - 2)) == data[max(0, size - 2) :]
        assert findings(reader, Depth.CONTENT) == []


def test_incompressible_data_costs_next_to_nothing() -> None:
    data = noise(1, 8 << 20)
    assert len(image_of(data, options=VsnapOptions(level=3))) < len(data) * 1.002 + 20_000


def alternating(cells: int) -> None:
    """Every second cell holds data; the rest is zero."""
    size = cells * 4096
    storage = MemoryStorage()
    writer = FORMAT.create(storage, size, options=VsnapOptions(cell_size=4096))
    pattern = (b"x" * 4096 + bytes(4096)) * 128
    for at in range(0, size, writer.unit):
        data = pattern[: min(writer.unit, size - at)]
        writer.store(writer.encode(memoryview(data), at))
    writer.finish(ImageMetadata())
    with opened(bytes(storage.data)) as reader:
        count = sum(1 for _ in reader.extents())
        assert count == cells
        assert reader.pread(8192, size // 2) == pattern[:8192]
        assert findings(reader, Depth.STORED) == []
    with opened(bytes(storage.data), recover=True) as reader:
        assert sum(1 for _ in reader.extents()) == cells


def test_alternating_cells() -> None:
    alternating(100_000)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_million_alternating_cells() -> None:
    alternating(1_000_000)


class _Drain(MemoryStorage):
    """Takes bytes and forgets them."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    @property
    def size(self) -> int:
        return self._count

    def append(self, parts: Sequence[bytes | bytearray | memoryview], /) -> int:
        start = self._count
        self._count += sum(map(len, parts))
        return start


def test_writer_needs_memory_for_a_few_chunks_only() -> None:
    writer = FORMAT.create(_Drain(), 4 << 40, options=VsnapOptions(level=1))
    data = memoryview(b"a" + bytes((1 << 20) - 1))
    peaks = []
    tracemalloc.start()
    try:
        at = 0
        for count in (300, 4000):
            tracemalloc.reset_peak()
            for _ in range(count):
                writer.store(writer.encode(data, at))
                at += 3 << 20  # every third chunk: no run is flat
            peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (2 << 20)


def test_cache_stays_within_its_bytes() -> None:
    from vsssnap.formats.vsnap.reader import CACHE_SIZE

    data = (b"some words " * 100_000)[: 1 << 20] * 96
    with opened(image_of(data, options=VsnapOptions())) as reader:
        for at in 2 * [*range(0, len(data), 100_000)]:
            reader.pread(10, at)
            assert reader._plain._cache.used <= CACHE_SIZE
        assert reader._plain._cache.used > CACHE_SIZE // 2


def test_threads_read_the_same_image() -> None:
    data = b"".join(noise(n, 1000) * 66 for n in range(100))
    options = VsnapOptions(chunk_size=1 << 16, cell_size=1 << 12)
    failures: list[object] = []
    with opened(image_of(data, options=options)) as reader:

        def work(seed: int) -> None:
            dice = random.Random(seed)
            for _ in range(300):
                at, length = dice.randrange(len(data)), dice.randrange(200_000)
                if reader.pread(length, at) != data[at : at + length]:
                    failures.append((seed, at, length))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert not failures


def test_metadata_and_documents_come_back() -> None:
    with opened(image_of(*every_kind(), metadata=documents())) as reader:
        assert reader.metadata == documents()


def test_info_tells_the_facts() -> None:
    data, marks = every_kind()
    file = image_of(data, marks)
    with opened(file) as reader:
        info = reader.info()
    assert (info["stored_size"], info["complete"], info["size"]) == (len(file), True, len(data))
    assert info["states"]["hole"] == 65536
    assert info["states"]["unreadable"] == 100 + 4096
    assert sum(info["states"].values()) == len(data)
    assert (info["chunk_size"], info["cell_size"], info["digest"]) == (65536, 4096, "sha256")


def test_closed_reader_refuses() -> None:
    reader = opened(image_of(b"x"))
    reader.close()
    with pytest.raises(ClosedError):
        reader.pread(1, 0)


def test_closed_writer_leaves_an_incomplete_image() -> None:
    storage = MemoryStorage()
    writer = FORMAT.create(storage, 2 << 20)
    for at in (0, 1 << 20):
        writer.store(writer.encode(memoryview(noise(1, 1 << 20)), at))
    writer.close()
    with pytest.raises(
        CorruptImageError, match=r"incomplete or damaged: no valid footer .* whole up to byte \d{7}"
    ):
        FORMAT.open(MemoryStorage(storage.data))
    with pytest.raises(ClosedError):
        writer.mark(Extent(0, 5, ExtentKind.ZERO))


def test_recovered_image_reads_what_is_there() -> None:
    data = noise(1, 4 << 16)
    file = bytearray(image_of(data, options=SMALL))
    file[bytes(file).index(data[65536 + 100 : 65536 + 200])] ^= 1
    with opened(bytes(file[:-100]), recover=True) as reader:
        kinds = [(e.offset, e.kind) for e in reader.extents()]
        lost = ExtentKind.UNREADABLE
        assert kinds == [(0, ExtentKind.DATA), (65536, lost), (131072, ExtentKind.DATA)]
        assert reader.pread(2 << 16, 2 << 16) == data[2 << 16 :]
        assert not reader.info()["complete"]
        assert any("chunk 1" in line for line in reader.info()["damage"])


@pytest.mark.parametrize(
    ("offset", "length", "words"), [(5, 65536, "no unit"), (0, 5, "no unit"), (1 << 40, 65536, "no unit")]
)
def test_unaligned_units_are_refused(offset: int, length: int, words: str) -> None:
    writer = FORMAT.create(MemoryStorage(), 3 << 16, options=SMALL)
    with pytest.raises(UsageError, match=words):
        writer.encode(memoryview(bytes(length)), offset)


def test_falling_offsets_are_refused() -> None:
    writer = FORMAT.create(MemoryStorage(), 3 << 16, options=SMALL)
    unit = memoryview(noise(1, 1 << 16))
    writer.store(writer.encode(unit, 1 << 16))
    with pytest.raises(UsageError, match="rising offset"):
        writer.store(writer.encode(unit, 0))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"level": 30}, "level is 30"),
        ({"chunk_size": 5}, "chunk_size is 5"),
        ({"cell_size": 1 << 30}, "cell_size"),
        ({"digest": "md5"}, "digest is 'md5'"),
    ],
)
def test_impossible_options_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        FORMAT.create(MemoryStorage(), 5, options=VsnapOptions(**changes))  # type: ignore[arg-type]  # wrong on purpose


def test_unknown_incompatible_feature_is_refused_by_name() -> None:
    from vsssnap.formats.vsnap.layout import pack_header, parse_header
    from vsssnap.formats.vsnap.structs import HeaderBody

    header = HeaderBody(0, 1, 512, 5, 1 << 20, 1 << 16, 1 << 18, 512, 1, 2, 0, 0, bytes(16), bytes(32), 0)
    with pytest.raises(UnsupportedFeatureError, match="needs encrypted") as caught:
        parse_header(pack_header(header))
    assert caught.value.feature == "encrypted"


@pytest.mark.parametrize("critical", [True, False])
def test_unknown_frame_is_refused_if_critical_and_skipped_if_not(critical: bool) -> None:
    from vsssnap.formats.vsnap import frames
    from vsssnap.formats.vsnap.scan import frames_of

    body = b"".join(map(bytes, frames.build(77, 0, bytes(16), [b"later"], critical=critical)))
    found = frames_of(MemoryStorage(body), len(body), None)
    if critical:
        with pytest.raises(UnsupportedFeatureError, match="frame type 77"):
            list(found)
    else:
        assert len(list(found)) == 1


def test_raw_blocks_are_a_frame_that_zstd_reads() -> None:
    import zstandard

    for size in (1, 131072, 131073, 300_000):
        data = noise(size, size)
        assert zstandard.ZstdDecompressor().decompress(raw_frame(memoryview(data))) == data


@pytest.mark.posix("rusage")
def test_reading_a_huge_image_needs_little_memory() -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with opened(sparse(64 * TIB, [1 << 45])) as reader:
        assert sum(1 for _ in reader.extents()) == 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


# What a writer refuses.


def test_marks_that_overlap_are_refused() -> None:
    """Half a cell marked twice is no whole cell; taken for one, the parent's other half would be lost."""
    writer = FORMAT.create(MemoryStorage(), 3 << 16, options=SMALL)
    writer.mark(Extent(0, 2048, ExtentKind.HOLE))
    with pytest.raises(UsageError, match="comes after a mark up to 2048"):
        writer.mark(Extent(0, 2048, ExtentKind.HOLE))
    writer.mark(Extent(2048, 10, ExtentKind.HOLE))


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("", b"x", "name of 0 bytes"),
        ("x" * 5000, b"x", "name of 5000 bytes"),
        ("\ud800", b"x", "cannot be called"),
    ],
)
def test_documents_that_cannot_be_read_back_are_refused(name: str, data: bytes, words: str) -> None:
    storage = MemoryStorage()
    writer = FORMAT.create(storage, 1 << 16, options=SMALL)
    size = storage.size
    with pytest.raises(UsageError, match=words):
        writer.finish(ImageMetadata(documents={name: data}))
    assert storage.size == size
    writer.finish(ImageMetadata())
    assert opened(bytes(storage.data)).size == 1 << 16


def test_documents_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the reader bounds them."""
    from vsssnap.formats.vsnap import structs

    monkeypatch.setattr(structs, "MAX_PAYLOAD", 1000)
    writer = FORMAT.create(MemoryStorage(), 0, options=SMALL)
    with pytest.raises(UsageError, match="documents of 1002 bytes"):
        writer.finish(ImageMetadata(documents={"a": bytes(501), "b": bytes(501)}))


@pytest.mark.parametrize(
    ("row", "sound"),
    [
        (bytes([1, 7]) + b"later".ljust(46, b"\0"), True),
        (bytes([2, 63]) + b"x" * 46, True),
        (bytes([3, 7]) + b"later".ljust(46, b"\0"), False),
        (bytes([1, 64]) + b"later".ljust(46, b"\0"), False),
        (bytes([1, 7]) + bytes(46), False),
        (bytes([1, 7]) + b"\xff".ljust(46, b"\0"), False),
        (bytes([1, 7]) + b"la\0ter".ljust(46, b"\0"), False),
    ],
)
def test_names_of_features_are_held_to_the_specification(row: bytes, sound: bool) -> None:
    from vsssnap.formats.vsnap.frames import read_frame
    from vsssnap.formats.vsnap.layout import pack_header, parse_header

    body = read_frame(MemoryStorage(image_of(b"x")), 0, 9999, None).body
    header = dataclasses.replace(parse_header(body)[0], name_count=1)
    if sound:
        assert (row[0], row[1]) in parse_header(pack_header(header) + row)[1]
    else:
        with pytest.raises(CorruptImageError, match=f"of word {row[0]}, bit {row[1]}"):
            parse_header(pack_header(header) + row)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"offset": 10}, "reference to .* at 10"),
        ({"offset": 1 << 40}, f"at {1 << 40}"),
        ({"length": 1 << 20}, f"reference to {1 << 20} bytes"),
        ({"file": 1}, "root in file 1 of 1"),
    ],
)
def test_root_of_a_footer_lies_in_the_file(change: dict[str, int], why: str) -> None:
    from vsssnap.formats.vsnap import structs
    from vsssnap.formats.vsnap.layout import parse_footer
    from vsssnap.formats.vsnap.structs import HEAD, FooterBody

    image = image_of(random.Random(1).randbytes(300_000))
    place = len(image) - structs.TAIL
    body = image[place + HEAD : place + structs.FOOTER_SIZE]
    found = parse_footer(body, place, len(image)).body
    root = dataclasses.replace(found.root, **change)  # type: ignore[arg-type]  # numbers all
    packed = root.pack()
    forged = dataclasses.replace(found, root_head=packed[:8], root_place=packed[8:24], root_value=packed[24:])
    assert found.root.kind == structs.PAGE
    with pytest.raises(CorruptImageError, match=why):
        parse_footer(forged.pack() + body[FooterBody.SIZE :], place, len(image))


@pytest.mark.parametrize("kind", ["state", "data"])
def test_parent_cells_without_a_parent_are_damage(kind: str) -> None:
    """In any place, not only in the last run."""
    from vsssnap.formats.vsnap import frames, structs
    from vsssnap.formats.vsnap.frames import Frame, read_frame
    from vsssnap.formats.vsnap.layout import Geometry, parse_header
    from vsssnap.formats.vsnap.payload import pack_data, parse_data
    from vsssnap.formats.vsnap.state_frames import parse_states
    from vsssnap.formats.vsnap.states import CellStates
    from vsssnap.formats.vsnap.structs import DataBody, StateBody

    grid = Geometry(parse_header(read_frame(MemoryStorage(image_of(b"x" * 70_000)), 0, 9999, None).body)[0])

    def frame(number: int, body: list[bytes], outer: int = 0) -> Frame:
        data = b"".join(map(bytes, frames.build(number, 0, bytes(16), body, outer_length=outer)))
        return read_frame(MemoryStorage(data + bytes(outer)), 0, len(data) + outer, None)

    if kind == "state":
        runs = b"".join(bytes([state, count]) + bytes(6) for state, count in ((structs.PARENT, 1), (0, 17)))
        with pytest.raises(CorruptImageError, match="PARENT cells without a parent"):
            parse_states(frame(structs.STATE_FRAME, [StateBody(0, 18, 2, 0).pack(), runs]), grid, "")
    else:
        body = pack_data(
            DataBody(0, bytes(16), bytes(32), 4096, 1, 0), CellStates(1, parent=2), 2, [b"1234"], [bytes(16)]
        )
        with pytest.raises(CorruptImageError, match="PARENT cells without a parent"):
            parse_data(frame(structs.DATA_FRAME, [body], 4), grid, "")
