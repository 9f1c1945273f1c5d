"""The contract of `ImageFormat`, as a check."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import tempfile
from typing import TYPE_CHECKING

from vsssnap.blocks.extent import ExtentKind
from vsssnap.errors import UsageError
from vsssnap.formats.base import FORMAT_API, ImageFormat, ImageReader, ImageWriter, Probe, WriteOrder
from vsssnap.formats.storage import FileStorage, MemoryStorage
from vsssnap.metadata import ImageMetadata
from vsssnap.testing import _format_case as case
from vsssnap.testing._format_damage import DamageCase
from vsssnap.testing.powercut import PowerCut
from vsssnap.testing.readers import check_reader

if TYPE_CHECKING:
    from collections.abc import Sequence

_FEATURES = frozenset({"compression", "checksums", "holes", "metadata", "parents", "streaming", "unreadable"})
_ENDS = 1 << 16  # bytes that a probe sees of each end


def check_format(
    fmt: ImageFormat,
    *,
    options: Sequence[object] = (None,),
    sizes: Sequence[int] | None = None,
    complete_mark: bool | None = None,
    damage: int = 24,
    threads: int = 4,
    seed: int = 0,
    timeout: float = 60.0,
) -> None:
    """Hold a format to the contract of `ImageFormat`, its writers and its readers.

    Images are written in memory, to a stream if the format says it can, and to one file in a
    temporary folder; read back, probed, verified, cut short, damaged, and met by power cuts.

    Args:
        fmt: The driver.
        options: What images are created with, one after the other; the first serves for all
            that is checked only once.
        sizes: Of the volumes; by default edges of sectors and of the format's unit.  A size that the
            format refuses with UsageError is passed over, but not all may be.
        complete_mark: Whether an image without ``finish`` is told from a complete one; by default
            whether the format has a magic.
        damage: How many damaged and how many shortened images are opened.
        threads: How many encode, store and read at once.
        seed: Of all that is random.
        timeout: Seconds for anything that runs in threads.

    Raises:
        AssertionError: a clause is broken; the message says which and where.
    """
    check = _FormatCheck(fmt, options[0], complete_mark, threads, seed, timeout)
    during = check.clauses.during
    with during("asking for facts"):
        check.facts()
    with during("writing and probing an image"):
        check.learn()
    for chosen in options:
        with during(f"writing and reading images with options {chosen!r}"):
            check.round_trips(chosen, sizes)
    with during("creating what cannot be"):
        check.refusals()
    with during("writing and reading a child"):
        check.child()
    with during("writing to a stream"):
        check.stream()
    with during("writing to a file"):
        check.file()
    with during("reading an incomplete image"):
        check.incomplete()
    with during("reading a damaged image"):
        check.shortened(damage)
        check.damaged(damage)
    with during("reading what a power cut left"):
        check.power_cuts()


class _FormatCheck(DamageCase):
    """The clauses, one method each."""

    def facts(self) -> None:
        fmt, require = self.fmt, self.clauses.require
        require(isinstance(fmt, ImageFormat), "a format is an ImageFormat")
        self.named(fmt, ImageFormat)
        for name in ("name", "options_type"):
            require(hasattr(fmt, name), "a format has name and options_type", f"there is no {name}")
        require(fmt.api == FORMAT_API, "api is that of this vsssnap", f"{fmt.api}, not {FORMAT_API}")
        require(bool(fmt.name) and fmt.name == fmt.name.lower(), "name is lower case", repr(fmt.name))
        suffixes: object = fmt.suffixes
        dots = isinstance(suffixes, tuple) and all(str(s).startswith(".") for s in suffixes)
        require(dots, "suffixes is a tuple, each with its dot", repr(fmt.suffixes))
        require(fmt.features <= _FEATURES, "features are known words", str(sorted(fmt.features - _FEATURES)))
        kind: object = fmt.options_type
        require(isinstance(kind, type) and dataclasses.is_dataclass(kind), "options_type is a dataclass")
        values = fmt.options_type()
        frozen = values.__dataclass_params__.frozen
        require(frozen, "options_type is frozen and has a default for everything")

    def named(self, thing: object, contract: type) -> None:
        wrong = case.misnamed(thing, contract)
        self.clauses.require(not wrong, "attributes have the names of the contract", wrong)

    def learn(self) -> None:
        """The unit, and an image that serves for all that is checked only once."""
        writer = self.fmt.create(MemoryStorage(), 1 << 20, options=self.options)
        self.unit = writer.unit
        order: object = writer.write_order
        writer.close()
        self.named(writer, ImageWriter)
        self.clauses.require(isinstance(order, WriteOrder), "write_order is a WriteOrder", repr(order))
        self.clauses.require(1 << 16 <= self.unit <= 1 << 24, "unit is 64 KiB to 16 MiB", str(self.unit))
        size = self.unit + (1 << 18)
        found = {pattern.name: pattern for pattern in case.patterns(size, self.unit, self.seed)}
        self.sample = found["islands"]
        storage = self.write(self.sample, self.options)
        self.image = storage.content()
        own = self.probe(self.image, "")
        if self.mark is None:
            self.mark = own > 10
        named = max((self.probe(self.image, "image" + s) for s in self.fmt.suffixes), default=own)
        self.clauses.require(0 < named <= 100, "probe() knows an image of its own", f"gave {named}")
        self.clauses.require(own <= named, "a suffix only makes probe() surer", f"{own}, then {named}")
        dice = random.Random(self.seed)  # noqa: S311 - repeatable, not secret
        for what in (b"", b"\0", bytes(4096), bytes(1 << 17), dice.randbytes(511), dice.randbytes(1 << 17)):
            score = self.probe(what, "")
            clause = "probe() says no to bytes that are not its own"
            self.clauses.require(score == 0, clause, f"gave {score} for {len(what)} bytes")
            for suffix in self.fmt.suffixes:
                score = self.probe(what, "image" + suffix)
                clause = "probe() gives at most 10 by suffix alone"
                self.clauses.require(score <= 10, clause, f"gave {score} for {len(what)} bytes, {suffix}")
        for length in range(0, 600, 37):  # and it never trips over a short head
            self.probe(self.image[:length], "")

    def probe(self, data: bytes, name: str) -> int:
        score = self.fmt.probe(Probe(data[:_ENDS], data[-_ENDS:], name, len(data)))
        self.clauses.require(0 <= score <= 100, "probe() gives 0 to 100", str(score))
        return score

    def round_trips(self, options: object, sizes: Sequence[int] | None) -> None:
        unit = self.unit
        chosen = sizes or (0, 1, 511, 512, 513, 4096, 65536, unit - 512, unit, unit + 512, 2 * unit + 65537)
        done = 0
        for size in chosen:
            try:
                self.fmt.create(MemoryStorage(), size, options=options).close()
            except UsageError:
                continue
            done += 1
            for pattern in case.patterns(size, unit, self.seed):
                self.round_trip(pattern, options)
        self.clauses.require(done > 0, "it takes volumes of some sizes", f"refused {chosen}")

    def round_trip(self, pattern: case.Pattern, options: object) -> None:
        size = len(pattern.content)
        where = f"{size} bytes, {pattern.name}"
        storage = PowerCut()
        flattened = self.put(storage, pattern, options)
        self.clauses.require(storage.unflushed == 0, "finish() flushes what it writes", where)
        data = storage.content()
        opened = case.ClosingStorage(data, "checked image")
        with self.fmt.open(opened) as reader:
            self.clauses.require(isinstance(reader, ImageReader), "open() gives an ImageReader", where)
            self.named(reader, ImageReader)
            clause = "an image has its volume's size"
            self.clauses.require(reader.size == size, clause, f"{where}: {reader.size}")
            self.clauses.require(reader.format == self.fmt.name, "reader.format is the format's name", where)
            self.clauses.same(case.read_all(reader), pattern.content, "an image reads as its volume", where)
            self.facts_of(reader, data, where)
            self.kinds(reader, pattern, flattened, where)
            self.verified(reader, where)
        self.clauses.require(opened.closed, "closing the reader closes the storage", where)
        if size <= 1 << 17:
            check_reader(
                case.opener(self.fmt, data),
                pattern.content,
                threads=self.threads,
                seed=self.seed,
                timeout=self.timeout,
            )

    def facts_of(self, reader: ImageReader, data: bytes, where: str) -> None:
        info = dict(reader.info())
        try:
            json.dumps(info, allow_nan=False)
        except (TypeError, ValueError) as exc:
            raise AssertionError(
                f"{self.clauses.what}: info() holds JSON values only; {where}: {exc}"
            ) from exc
        stored = info.get("stored_size", len(data))
        self.clauses.require(stored == len(data), "info()'s stored_size is the file's", f"{where}: {stored}")
        self.clauses.require(info.get("complete", True) is True, "a finished image is complete", where)
        if "metadata" in self.fmt.features:
            clause = "metadata comes back as it was given to finish()"
            self.clauses.require(reader.metadata == case.METADATA, clause, where)

    def kinds(
        self, reader: ImageReader, pattern: case.Pattern, flattened: dict[str, int], where: str
    ) -> None:
        found = list(reader.extents())
        weaker = case.weaker(found, pattern)
        clause = "no range gets a weaker kind than it was marked with"
        self.clauses.require(not weaker, clause, f"{where}: {weaker}")
        for kind in (ExtentKind.HOLE, ExtentKind.EXCLUDED, ExtentKind.UNREADABLE):
            marked = pattern.of(kind)
            kept = sum(extent.length for extent in found if extent.kind is kind)
            seen = (
                f"{where}: {marked} bytes marked {kind.name}, {kept} kept, {flattened.get(kind, 0)} flattened"
            )
            if pattern.name != "pieces of every kind":  # below the format's own granularity
                clause = "what flattened() does not count is kept"
                self.clauses.require(kept + flattened.get(kind, 0) >= marked, clause, seen)
            if kind is ExtentKind.UNREADABLE and "unreadable" in self.fmt.features:
                clause = 'a format with the feature "unreadable" keeps every such byte'
                self.clauses.require(kept == marked, clause, seen)

    def verified(self, reader: ImageReader, where: str) -> None:
        depths = reader.depths()
        rising = bool(depths) and list(depths) == sorted(set(depths))
        self.clauses.require(rising, "depths() rises", f"{where}: {depths}")
        for depth in depths:
            counts: list[int] = []
            findings = list(reader.verify(depth, counts.append))
            seen = f"{where}, {depth.name}: {findings[:1]}"
            self.clauses.require(not findings, "verify() finds nothing in a sound image", seen)
            self.clauses.require(all(n >= 0 for n in counts), "progress only goes forward", where)

    def refusals(self) -> None:
        fmt = self.fmt
        size = len(self.sample.content)
        clause = "create() refuses with UsageError what it cannot do"
        for where, options, of in (
            ("options of another format", object(), size),
            ("a negative size", self.options, -1),
        ):
            storage = case.ClosingStorage()
            self.clauses.raises(
                UsageError,
                lambda o=options, n=of, s=storage: fmt.create(s, n, options=o),  # type: ignore[misc] # bound per turn
                clause,
                where,
            )
            self.clauses.require(storage.closed, "create() closes the storage when it raises", where)
        if "parents" not in fmt.features:
            with fmt.open(MemoryStorage(self.image)) as parent:
                self.clauses.raises(
                    UsageError, lambda: fmt.create(MemoryStorage(), size, parent=parent), clause, "a parent"
                )

    def child(self) -> None:
        """A child of which only the end is written."""
        if "parents" not in self.fmt.features:
            return
        size, unit = len(self.sample.content), self.unit
        end = random.Random(self.seed).randbytes(size - unit)  # noqa: S311 - repeatable, not secret
        storage = MemoryStorage(name="checked child")
        with self.fmt.open(MemoryStorage(self.image, "checked parent")) as parent:
            writer = self.fmt.create(storage, size, parent=parent)
            at = unit // writer.unit * writer.unit
            writer.pwrite(memoryview(self.sample.content[at:unit] + end), at)
            writer.finish(ImageMetadata())
            writer.close()

        def resolve(candidates: Sequence[str], /, *, format: str | None = None) -> ImageReader:
            return self.fmt.open(MemoryStorage(self.image, "checked parent"))

        with self.fmt.open(storage, resolve_parent=resolve) as reader:
            clause = "what is neither stored nor marked is in a child as in the parent"
            self.clauses.same(
                case.read_all(reader), self.sample.content[:unit] + end, clause, "its end is new"
            )

    def stream(self) -> None:
        if "streaming" not in self.fmt.features:
            return
        storage = case.StreamStorage(name="checked stream")
        self.put(storage, self.sample, self.options)
        self.reads_right(bytes(storage.data), "written to a stream")

    def file(self) -> None:
        with tempfile.TemporaryDirectory(prefix="vsssnap-check-") as folder:
            path = os.path.join(folder, "image" + (*self.fmt.suffixes, "")[0])
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
            self.put(FileStorage(fd, path), self.sample, self.options)
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            with self.fmt.open(FileStorage(fd, path)) as reader:
                clause = "an image in a file reads as its volume"
                self.clauses.same(case.read_all(reader), self.sample.content, clause, "a file")

    def reads_right(self, data: bytes, where: str) -> None:
        with self.fmt.open(MemoryStorage(data, "checked image")) as reader:
            self.clauses.same(
                case.read_all(reader), self.sample.content, "an image reads as its volume", where
            )
