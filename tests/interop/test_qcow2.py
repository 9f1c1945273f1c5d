"""QCOW2 between us and other programs: what QEMU writes we read, and what we write others read."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import corpus_images
import huge
import oracles
from requirements import require_program
from vsssnap import (
    BlockReader,
    compare_blocks,
    copy_blocks,
    create_image,
    open_image,
    save_image,
    verify_image,
)
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import (
    CorruptImageError,
    ImageNotFoundError,
    UnsupportedFeatureError,
    UsageError,
)
from vsssnap.formats.qcow2 import Qcow2Options, Qcow2Reader
from vsssnap.testing.memory import MemoryReader

KIB = 1 << 10
MIB = 1 << 20


def run(program: str, *arguments: str | Path, check: bool = True) -> str:
    return oracles.run([require_program(program), *arguments], check=check).stdout


def qemu_img(*arguments: str | Path) -> str:
    return run("qemu-img", *arguments)


def qemu_io(path: Path, *commands: str, check: bool = True) -> None:
    options = [text for command in commands for text in ("-c", command)]
    run("qemu-io", "-f", "qcow2", *options, path, check=check)


def reader_of(path: Path, *, recover: bool = False) -> Qcow2Reader:
    reader = open_image(path, recover=recover)
    assert isinstance(reader, Qcow2Reader)
    return reader


def volume_of(size: int, seed: int = 0, fill: str = "islands") -> bytearray:
    """A volume: empty, random, or islands of random bytes and of text among zeros."""
    dice = random.Random(seed)
    if fill == "empty":
        return bytearray(size)
    if fill == "random":
        return bytearray(dice.randbytes(size))
    data = bytearray(size)
    for number in range(max(4, size // (64 * KIB))):
        at = dice.randrange(size) // 512 * 512
        length = min(dice.choice([512, 4096, 40000, 100000]), size - at)
        text = b"line %d of a file that compresses\n" % number
        data[at : at + length] = dice.randbytes(length) if number % 2 else (text * length)[:length]
    return data


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A raw volume of 6 MiB and 1.5 KiB, so that no cluster size divides it."""
    path = tmp_path_factory.mktemp("source") / "volume.raw"
    data = bytes(volume_of(6 * MIB + 1536, 1))
    path.write_bytes(data)
    return path, data


# What others wrote.

CORPUS = [
    "dissect.hypervisor/disk/qcow2/basic.qcow2",
    "dissect.hypervisor/disk/qcow2/data-file.qcow2",
    "plaso/image.qcow2",
    "plaso/usnjrnl.qcow2",
    "plaso/vsstest.qcow2",
    "dfvfs/ext2.qcow2",
    "dfvfs/fvdetest.qcow2",
    "dfvfs/windows_volume.qcow2",
]


def blocks_of(reader: Qcow2Reader) -> Iterator[tuple[int, bytes]]:
    for extent in reader.extents():
        if extent.kind is ExtentKind.DATA:
            first = extent.offset // oracles.BLOCK * oracles.BLOCK
            for at in range(first, extent.end, oracles.BLOCK):
                yield at, reader.pread(oracles.BLOCK, at)


def digest(reader: Qcow2Reader) -> str:
    seen = dict(blocks_of(reader))  # a block may hold the ends of two extents
    return oracles.digest_of(sorted(seen.items()))


@pytest.mark.parametrize("name", CORPUS)
def test_corpus_image_has_the_content_that_is_known(name: str) -> None:
    known = corpus_images.expected()[name]
    if "data-file" in name:
        corpus_images.image(name.replace(".qcow2", ".bin"))
    path = corpus_images.image(name)
    with reader_of(path) as reader:
        assert (reader.size, digest(reader)) == (known.size, known.digest)
    assert verify_image(path).ok


def test_corpus_is_all_here() -> None:
    assert sorted(CORPUS) == sorted(n for n, e in corpus_images.expected().items() if e.format == "qcow2")


VARIANTS = [
    *(f"cluster_size={size}" for size in ("512", "1k", "2k", "4k", "16k", "64k", "256k", "2M")),
    "compat=0.10",
    "compat=0.10,cluster_size=4k",
    "lazy_refcounts=on",
    *(f"refcount_bits={bits},cluster_size=1k" for bits in (1, 2, 4, 8, 16, 32, 64)),
    "extended_l2=on",
    "extended_l2=on,cluster_size=16k",
    "extended_l2=on,cluster_size=2M",
    "data_file=data.raw",
    "data_file=data.raw,data_file_raw=on",
    "data_file=data.raw,extended_l2=on",
    *(f"preallocation={mode}" for mode in ("metadata", "falloc", "full")),
    "preallocation=metadata,extended_l2=on",
]
PACKED = [
    *(f"cluster_size={size}" for size in ("512", "4k", "64k", "2M")),
    "compat=0.10",
    "compression_type=zstd",
    "compression_type=zstd,cluster_size=2M",
    "compression_type=zstd,extended_l2=on",
]


@pytest.mark.parametrize("options", [*VARIANTS, *(f"packed,{options}" for options in PACKED)])
def test_image_of_qemu_reads_as_its_source(options: str, source: tuple[Path, bytes], tmp_path: Path) -> None:
    raw, data = source
    path = tmp_path / "image.qcow2"
    more = ["-c"] if options.startswith("packed,") else []
    options = options.removeprefix("packed,").replace("data.raw", str(tmp_path / "data.raw"))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *more, "-o", options, raw, path)

    with reader_of(path) as reader:
        assert reader.readall() == data
        assert digest(reader) == oracles.content_of(data).digest  # by extents
        dice = random.Random(1)
        for _ in range(50):
            at, length = dice.randrange(len(data)), dice.randrange(200000)
            assert reader.pread(length, at) == data[at : at + length]
    report = verify_image(path)
    assert report.ok, report.findings


def test_preallocated_clusters_that_were_never_written_are_zero(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    qemu_img("create", "-f", "qcow2", "-o", "preallocation=metadata", path, "64M")
    with reader_of(path) as reader:
        assert list(reader.extents()) == [Extent(0, 64 * MIB, ExtentKind.ZERO)]


def test_subclusters_over_a_backing_file(tmp_path: Path) -> None:
    base, path = tmp_path / "base.raw", tmp_path / "image.qcow2"
    model = bytearray(random.Random(1).randbytes(3 * MIB))
    base.write_bytes(model)
    options = ["-o", "extended_l2=on", "-b", str(base), "-F", "raw"]
    qemu_img("create", "-f", "qcow2", *options, path, str(4 * MIB))
    model += bytes(MIB)
    commands = []
    dice = random.Random(2)
    for number in range(60):
        at, length = dice.randrange(4 * MIB) // 512 * 512, dice.choice([512, 2048, 4096, 70000 // 512 * 512])
        length = min(length, 4 * MIB - at)
        if number % 3:
            commands.append(f"write -P {number} {at} {length}")
            model[at : at + length] = bytes([number]) * length
        else:
            commands.append(f"write -z {at} {length}")
            model[at : at + length] = bytes(length)
    qemu_io(path, *commands)

    with reader_of(path) as reader:
        assert reader.readall() == model
        zero = {(e.offset, e.length) for e in reader.extents() if e.kind is ExtentKind.ZERO}
    told = json.loads(qemu_img("map", "--output=json", path))
    assert zero == runs((item["start"], item["length"]) for item in told if item["zero"])
    assert verify_image(path).ok


def runs(ranges: Iterator[tuple[int, int]]) -> set[tuple[int, int]]:
    """Ranges with neighbours joined."""
    joined: list[tuple[int, int]] = []
    for at, length in ranges:
        if joined and sum(joined[-1]) == at:
            joined[-1] = (joined[-1][0], joined[-1][1] + length)
        else:
            joined.append((at, length))
    return set(joined)


@pytest.mark.parametrize(
    ("options", "resized"),
    [("compat=0.10", False), ("", True), ("extended_l2=on,refcount_bits=8", True), ("cluster_size=4k", True)],
)
def test_snapshots_are_images_of_their_own(options: str, resized: bool, tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    qemu_img("create", "-f", "qcow2", *(["-o", options] if options else []), path, "8M")
    model = bytearray(8 * MIB)
    states = []
    for number, (at, length) in enumerate([(0, 100 * KIB), (50 * KIB, 3 * MIB), (4 * MIB, 200 * KIB)], 1):
        qemu_io(path, f"write -P {number} {at} {length}")
        model[at : at + length] = bytes([number]) * length
        qemu_img("snapshot", "-c", f"after {number}", path)
        states.append(bytes(model))
        if resized:
            model += bytes(MIB)
            qemu_img("resize", "-f", "qcow2", path, "+1M")
    qemu_io(path, "write -z 0 2M")
    model[: 2 * MIB] = bytes(2 * MIB)

    reader = reader_of(path)
    assert reader.readall() == model
    assert [(item.id, item.name) for item in reader.snapshots] == [(str(n), f"after {n}") for n in (1, 2, 3)]
    assert [item.size for item in reader.snapshots] == [len(state) for state in states]
    opened = [reader.open_snapshot(name) for name in ("1", "after 2", "3")]
    with pytest.raises(UsageError, match="no snapshots are called 'after 4'"):
        reader.open_snapshot("after 4")
    reader.close()  # its snapshots stay open
    for snapshot, state in zip(opened, states, strict=True):
        with snapshot:
            assert snapshot.readall() == state
    assert verify_image(path).ok


def test_bitmaps_tell_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    qemu_img("create", "-f", "qcow2", path, "1G")
    qemu_img("bitmap", "--add", "-g", "64K", path, "coarse")
    qemu_img("bitmap", "--add", "-g", "512", path, "fine")
    qemu_img("bitmap", "--add", "--disable", path, "asleep")
    with reader_of(path) as reader:
        assert [list(reader.dirty_extents(item.name)) for item in reader.bitmaps] == [[], [], []]
    written = [(0, 512), (3 * MIB + 1024, 4096), (700 * MIB, 50 * MIB), (1024 * MIB - 512, 512)]
    qemu_io(path, *(f"write {at} {length}" for at, length in written))

    with reader_of(path) as reader:
        assert [(item.name, item.granularity, item.enabled, item.consistent) for item in reader.bitmaps] == [
            ("coarse", 64 * KIB, True, True),
            ("fine", 512, True, True),
            ("asleep", 64 * KIB, False, True),
        ]
        assert list(reader.dirty_extents("fine")) == [Extent(at, length) for at, length in written]
        assert list(reader.dirty_extents("coarse")) == [
            Extent(0, 64 * KIB),
            Extent(3 * MIB, 64 * KIB),
            Extent(700 * MIB, 50 * MIB),
            Extent(1024 * MIB - 64 * KIB, 64 * KIB),
        ]
        assert list(reader.dirty_extents("asleep")) == []
        with pytest.raises(UsageError, match="no bitmap is called 'none'"):
            reader.dirty_extents("none")
    assert verify_image(path).ok


def test_bitmap_in_use_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    qemu_img("create", "-f", "qcow2", path, "64M")
    qemu_img("bitmap", "--add", path, "dirty")
    qemu_io(path, "write 0 64k", "flush", "abort", check=False)  # the machine dies

    with reader_of(path) as reader:
        (bitmap,) = reader.bitmaps
        assert (bitmap.consistent, bitmap.problem) == (False, "it was in use when the image was closed last")
        with pytest.raises(CorruptImageError, match="bitmap 'dirty' cannot be trusted: it was in use"):
            reader.dirty_extents("dirty")
        assert reader.info()["bitmaps"][0]["problem"]


def test_image_with_lazy_refcounts_that_was_not_closed_is_read(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    qemu_img("create", "-f", "qcow2", "-o", "lazy_refcounts=on", path, "64M")
    qemu_io(path, "write -P 7 1M 300k", "flush", "abort", check=False)

    with reader_of(path) as reader:
        assert "dirty bit" in reader.info()["features"]
        assert reader.pread(300 * KIB, MIB) == b"\7" * (300 * KIB)
    assert [found.message[:17] for found in verify_image(path).findings] == ["the dirty bit is "]


@pytest.mark.parametrize("kind", [pytest.param("luks", marks=pytest.mark.long), "aes"])  # LUKS takes 5 s
def test_encrypted_image_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    secret = ["--object", "secret,id=key,data=secret"]
    options = f"encrypt.format={kind},encrypt.key-secret=key"
    for left in range(9, -1, -1):
        try:
            qemu_img("create", "-f", "qcow2", *secret, "-o", options, path, "1M")
            break
        except oracles.OracleError as exc:
            # On a busy machine QEMU may not find out how much work a key of LUKS is.
            if not left or "Unable to get accurate CPU usage" not in str(exc):
                raise
    with pytest.raises(UnsupportedFeatureError, match=rf"its payload is encrypted \({kind.upper()}\)"):
        open_image(path)


# Backing chains.


def test_chain_of_qemu_is_followed_with_the_formats_recorded(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    base, middle, top = tmp_path / "bases" / "base", tmp_path / "middle.qcow2", tmp_path / "top.qcow2"
    model = bytearray(random.Random(1).randbytes(2 * MIB))
    base.write_bytes(model)
    qemu_img("create", "-f", "qcow2", "-b", "bases/base", "-F", "raw", middle, "3M")
    qemu_io(middle, "write -P 1 100k 100k", "write -z 1M 64k")
    qemu_img("create", "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2", top, "4M")
    qemu_io(top, "write -P 2 150k 1M", "write -P 3 3900k 10k")
    model += bytes(2 * MIB)
    for byte, at, length in ((1, 100, 100), (0, 1024, 64), (2, 150, 1024), (3, 3900, 10)):
        model[at * KIB : (at + length) * KIB] = bytes([byte]) * length * KIB

    with reader_of(top) as reader:
        assert reader.readall() == model
        assert reader.origins == (str(top), str(middle), str(base))
        assert digest(reader) == oracles.content_of(bytes(model)).digest


def forget_format(path: Path) -> None:
    """Make an image as older programs did: the backing file's format is not recorded."""
    data = bytearray(path.read_bytes())
    at = data.index(bytes.fromhex("e2792aca"))
    data[at : at + 4] = b"gone"  # an extension that nobody knows
    path.write_bytes(data)


def test_raw_backing_file_is_never_taken_for_an_image(tmp_path: Path) -> None:
    secret, base, path = tmp_path / "secret", tmp_path / "base", tmp_path / "image.qcow2"
    secret.write_bytes(b"not for the guest" * 10000)
    # A guest writes the head of an image that names a file of the host into its own raw disk.
    qemu_img("create", "-f", "qcow2", "-b", secret, "-F", "raw", base, "1M")
    base.write_bytes(base.read_bytes().ljust(MIB, b"\0"))
    qemu_img("create", "-f", "qcow2", "-b", base, "-F", "raw", path)

    with reader_of(path) as reader:
        assert reader.readall() == base.read_bytes()

    forget_format(path)
    with pytest.raises(UnsupportedFeatureError, match=r"the format of its backing file .* is not recorded"):
        open_image(path)


def test_backing_file_without_a_format_may_stand_alone(source: tuple[Path, bytes], tmp_path: Path) -> None:
    _, data = source
    size = len(data) // 512 * 512
    (tmp_path / "base.img").write_bytes(data[:size])
    qemu_img("create", "-f", "qcow2", "-u", "-b", "base.img", "-F", "raw", tmp_path / "raw.qcow2", str(size))
    forget_format(tmp_path / "raw.qcow2")
    with reader_of(tmp_path / "raw.qcow2") as reader:
        assert reader.readall() == data[:size]
    qemu_img("convert", "-f", "raw", "-O", "qcow2", tmp_path / "base.img", tmp_path / "base.qcow2")
    qemu_img(
        "create", "-f", "qcow2", "-u", "-b", "base.qcow2", "-F", "qcow2", tmp_path / "image.qcow2", str(size)
    )
    forget_format(tmp_path / "image.qcow2")
    with reader_of(tmp_path / "image.qcow2") as reader:
        assert reader.readall() == data[:size]


@pytest.mark.parametrize(
    ("backing", "kind", "error", "match"),
    [
        ("nbd://host/name", "raw", UnsupportedFeatureError, "refers to 'nbd://host/name', which is no path"),
        ('json:{"driver":"null-co"}', "raw", UnsupportedFeatureError, "which is no path"),
        ("other.vdi", "vdi", UnsupportedFeatureError, "'other.vdi' is a 'vdi' image"),
        ("gone.qcow2", "qcow2", ImageNotFoundError, "its parent is not there"),
        ("image.qcow2", "qcow2", CorruptImageError, "is its own descendant"),
    ],
)
def test_backing_file_that_cannot_be_had_is_an_error(
    backing: str, kind: str, error: type[Exception], match: str, tmp_path: Path
) -> None:
    path = tmp_path / "image.qcow2"
    qemu_img("create", "-f", "qcow2", "-u", "-b", backing, "-F", kind, path, "1M")
    with pytest.raises(error, match=match):
        open_image(path)


def test_long_chain_of_qemu_is_followed(tmp_path: Path) -> None:
    for number in range(400):
        options = ["-u", "-b", f"{number - 1}", "-F", "qcow2"] if number else []
        if number < 2:
            qemu_img("create", "-f", "qcow2", *options, tmp_path / f"{number}", "64k")
            continue
        data = bytearray((tmp_path / "1").read_bytes())
        name = b"%d" % (number - 1)
        at = int.from_bytes(data[8:16], "big")
        data[at : at + len(name)] = name
        data[16:20] = len(name).to_bytes(4, "big")
        (tmp_path / f"{number}").write_bytes(data)
    with reader_of(tmp_path / "399") as reader:
        assert reader.readall() == bytes(64 * KIB)


def test_data_file_that_is_cut_is_an_error(source: tuple[Path, bytes], tmp_path: Path) -> None:
    raw, data = source
    path, companion = tmp_path / "image.qcow2", tmp_path / "data.raw"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", "-o", f"data_file={companion}", raw, path)
    with open(companion, "r+b") as file:
        file.truncate(MIB)
    with reader_of(path) as reader:
        assert reader.pread(1000, 0) == data[:1000]
        with pytest.raises(CorruptImageError, match="its data file ends at byte 1048576"):
            reader.readall()
    companion.unlink()
    with pytest.raises(ImageNotFoundError):
        open_image(path)


# What we write.


def kind_of(options: Qcow2Options) -> str:
    return "qcow2" if options.compression == "none" else f"qcow2-{options.compression}"


def check_ours(path: Path, data: bytes, kind: str, parents: Sequence[Path] = ()) -> None:
    assert oracles.complaints(path, kind) == []
    for family in oracles.readers(kind):
        seen = oracles.content(family, path, kind, parents=parents)
        assert seen == oracles.content_of(data), family
    report = verify_image(path)
    assert report.ok, report.findings


SMALL = [
    (Qcow2Options(), 6 * MIB + 1536, "islands"),
    (Qcow2Options(cluster_size=512), 512, "random"),
    (Qcow2Options(cluster_size=2 * MIB), 5 * MIB, "islands"),
    (Qcow2Options(compression="zstd"), 6 * MIB + 512, "islands"),
    (Qcow2Options(compression="zlib"), 3 * MIB, "islands"),
    (Qcow2Options(compression="zlib", cluster_size=4096), MIB + 512, "islands"),
    (Qcow2Options(compression="zstd"), 2 * MIB, "random"),
    (Qcow2Options(), 64 * KIB, "empty"),
]
FULL = [
    (Qcow2Options(cluster_size=1 << bits, compression=compression), size, fill)
    for bits in range(9, 22)
    for compression in ("none", "zstd", "zlib")
    for size in (512, 64 * KIB, 9 * MIB + 1536)
    for fill in ("empty", "random", "islands")
]


@pytest.mark.parametrize(("options", "size", "fill"), SMALL)
def test_ours_is_read_by_others(options: Qcow2Options, size: int, fill: str, tmp_path: Path) -> None:
    data = bytes(volume_of(size, 3, fill))
    save_image(MemoryReader(data), tmp_path / "image.qcow2", options=options)
    check_ours(tmp_path / "image.qcow2", data, kind_of(options))


@pytest.mark.long
@pytest.mark.parametrize(("options", "size", "fill"), FULL)
def test_every_kind_of_ours_is_read_by_others(
    options: Qcow2Options, size: int, fill: str, tmp_path: Path
) -> None:
    test_ours_is_read_by_others(options, size, fill, tmp_path)


@pytest.mark.parametrize("size", [0, 512, 3 * MIB])
def test_volume_without_data_is_clean(size: int, tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    create_image(path, size).finish()
    assert "No errors" in qemu_img("check", "-f", "qcow2", path)
    assert json.loads(qemu_img("info", "--output=json", path))["virtual-size"] == size
    assert verify_image(path).ok


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("kind", ["qcow2", "raw", "vpc", "vhdx", "vmdk"])
def test_child_of_ours_is_read_by_others(compression: str, kind: str, tmp_path: Path) -> None:
    data = volume_of(4 * MIB, 1)
    base = tmp_path / ("base.vhd" if kind == "vpc" else f"base.{kind}")
    save_image(MemoryReader(bytes(data)), base)
    now = bytearray(data)
    now[MIB : MIB + 300 * KIB] = bytes(300 * KIB)
    now[2 * MIB + 5] ^= 1
    now[3 * MIB : 3 * MIB + 64 * KIB] = b"new" * (64 * KIB // 3) + b"!"
    options = Qcow2Options(compression=compression)  # type: ignore[arg-type]
    with open_image(base) as parent:
        save_image(MemoryReader(bytes(now)), tmp_path / "child.qcow2", options=options, parent=parent)

    told = json.loads(qemu_img("info", "--output=json", tmp_path / "child.qcow2"))
    assert (told["backing-filename"], told["backing-filename-format"]) == (base.name, kind)
    assert "No errors" in qemu_img("check", "-f", "qcow2", tmp_path / "child.qcow2")
    families = oracles.readers("qcow2-backing-zero")
    if kind != "qcow2":
        families = tuple(family for family in families if family == "qemu")  # others take no such parent
        qemu_img("compare", "-f", "qcow2", "-F", "raw", tmp_path / "child.qcow2", write(tmp_path, now))
    for family in families:
        seen = oracles.content(family, tmp_path / "child.qcow2", "qcow2-backing-zero", parents=[base])
        assert seen == oracles.content_of(bytes(now)), family
    with open_image(tmp_path / "child.qcow2") as child, open_image(base) as parent:
        differ = list(compare_blocks(child, parent))
        assert differ[0].offset >= MIB
        assert differ[-1].end <= 3 * MIB + 64 * KIB


def write(folder: Path, data: bytes | bytearray) -> Path:
    path = folder / "expected.raw"
    path.write_bytes(data)
    return path


def test_image_of_ours_goes_on_living_in_qemu(tmp_path: Path) -> None:
    """QEMU writes to it, takes snapshots, and keeps our header extension."""
    path = tmp_path / "image.qcow2"
    model = volume_of(4 * MIB, 1)
    save_image(MemoryReader(bytes(model)), path, options=Qcow2Options(compression="zstd"))
    with open_image(path) as before:
        identity = before.info()["identity"]
    qemu_img("snapshot", "-c", "ours", path)
    qemu_io(path, "write -P 9 1000k 300k", "write -z 2M 100k", "discard 3M 128k")
    qemu_img("bitmap", "--add", path, "new")
    saved = bytes(model)
    model[1000 * KIB : 1300 * KIB] = b"\x09" * 300 * KIB
    model[2 * MIB : 2 * MIB + 100 * KIB] = bytes(100 * KIB)
    model[3 * MIB : 3 * MIB + 128 * KIB] = bytes(128 * KIB)

    assert "No errors" in qemu_img("check", "-f", "qcow2", path)
    with reader_of(path) as reader:
        assert reader.readall() == model
        assert reader.info()["identity"] == identity
        with reader.open_snapshot("ours") as snapshot:
            assert snapshot.readall() == saved
    assert verify_image(path).ok


HUGE = [
    (Qcow2Options(), (3 << 40) + 512),
    pytest.param(
        Qcow2Options(cluster_size=2 * MIB, compression="zstd"), 64 << 40, marks=pytest.mark.long
    ),  # 20 s
]


@pytest.mark.parametrize(("options", "size"), HUGE)
def test_huge_volume_is_read_by_others(options: Qcow2Options, size: int, tmp_path: Path) -> None:
    dice = random.Random(size)
    places = sorted({0, size - 512, *(dice.randrange(size) // MIB * MIB for _ in range(30))})
    content = {at: dice.randbytes(min(64 * KIB, size - at)) for at in places}
    extents, end = [], 0
    for at, piece in content.items():
        if at > end:
            extents.append(Extent(end, at - end, ExtentKind.ZERO))
        extents.append(Extent(at, len(piece)))
        end = at + len(piece)

    class Sparse(BlockReader):
        """Knows where its data is."""

        def __init__(self) -> None:
            super().__init__(size)

        def _read_into(self, view: memoryview, offset: int) -> None:
            view[:] = bytes(len(view))
            for at, piece in content.items():
                first, last = max(at, offset), min(at + len(piece), offset + len(view))
                if first < last:
                    view[first - offset : last - offset] = piece[first - at : last - at]

        def _extents(self, offset: int, length: int) -> Iterator[Extent]:
            for extent in [*extents, *([Extent(end, size - end, ExtentKind.ZERO)] if end < size else [])]:
                first, last = max(extent.offset, offset), min(extent.end, offset + length)
                if first < last:
                    yield Extent(first, last - first, extent.kind)

    path = tmp_path / "image.qcow2"
    writer = create_image(path, size, options=options)
    copy_blocks(Sparse(), writer)
    writer.finish()
    ranges = [(at, min(512, size - at)) for at in places]
    ranges += [(dice.randrange(size) // 512 * 512, 512) for _ in range(200)]
    wanted = [Sparse().pread(length, at) for at, length in ranges]
    kind = kind_of(options)
    for family in ("qemu", "dissect"):
        seen = oracles.spots(family, path, kind, ranges)
        assert [at for at, a, b in zip(ranges, seen, wanted, strict=True) if a != b] == [], family
    assert oracles.complaints(path, kind, huge=True) == []
    huge.check_map(path, kind, [(at, at + len(piece)) for at, piece in content.items()], options.cluster_size)
    assert verify_image(path).ok
    with reader_of(path) as reader:
        assert [reader.pread(length, at) for at, length in ranges] == wanted
