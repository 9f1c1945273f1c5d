"""Incomplete, shortened and damaged images, for `check_format`."""

from __future__ import annotations

import random

from vsssnap.errors import ImageError, VssSnapError
from vsssnap.formats.base import Depth, Finding, ImageFormat, ImageReader
from vsssnap.formats.storage import FileStorage, MemoryStorage
from vsssnap.testing import _format_case as case
from vsssnap.testing._clauses import Clauses
from vsssnap.testing.powercut import PowerCut

_CUTS = 24  # moments of a power cut, besides the last ones


class DamageCase:
    """A format under check, an image of it, and what becomes of that."""

    def __init__(
        self,
        fmt: ImageFormat,
        options: object,
        complete_mark: bool | None,
        threads: int,
        seed: int,
        timeout: float,
    ) -> None:
        self.fmt = fmt
        self.options = options
        self.mark: bool | None = complete_mark
        self.threads = threads
        self.seed = seed
        self.timeout = timeout
        self.clauses = Clauses(type(fmt).__name__)
        self.unit = 1 << 20
        self.sample = case.Pattern("", b"", ())
        self.image = b""

    def write(self, pattern: case.Pattern, options: object, *, finish: bool = True) -> PowerCut:
        storage = PowerCut()
        self.put(storage, pattern, options, finish=finish)
        self.clauses.require(storage.closed, "close() closes the storage")
        return storage

    def put(
        self,
        storage: PowerCut | MemoryStorage | FileStorage,
        pattern: case.Pattern,
        options: object,
        *,
        finish: bool = True,
    ) -> dict[str, int]:
        return case.write_image(
            self.fmt,
            storage,
            pattern,
            options=options,
            seed=self.seed,
            threads=self.threads,
            timeout=self.timeout,
            finish=finish,
        )

    def incomplete(self) -> None:
        if not self.mark:
            return
        storage = self.write(self.sample, self.options, finish=False)
        clause = "an image without finish() is refused with ImageError, or info() says it is not complete"
        self.never_whole(storage.content(), clause, "closed before finish()", whole=False)

    def never_whole(self, data: bytes, clause: str, where: str, *, whole: bool = True) -> None:
        """An image that may be incomplete: refused, recognisable, or (if allowed) whole and right."""
        storage = case.ClosingStorage(data, "checked image")
        try:
            reader = self.fmt.open(storage)
        except ImageError:
            self.clauses.require(storage.closed, "open() closes the storage when it raises", where)
            return
        except VssSnapError as exc:
            raise AssertionError(
                f"{self.clauses.what}: {clause}; {where} raised {type(exc).__name__}"
            ) from exc
        with reader:
            if dict(reader.info()).get("complete", True):
                self.clauses.require(whole, clause, f"{where}: it was opened")
                self.clauses.same(case.read_all(reader), self.sample.content, clause, where)

    def shortened(self, count: int) -> None:
        dice = random.Random(self.seed)  # noqa: S311 - repeatable, not secret
        total = len(self.image)
        lengths = {0, 1, 511, 512, total - 1, total - 512, total // 2}
        lengths |= {dice.randrange(total) for _ in range(count)}
        for length in sorted(n for n in lengths if 0 <= n < total):
            self.opens(self.image[:length], f"cut to {length} of {total} bytes", shorter=True)

    def damaged(self, count: int) -> None:
        dice = random.Random(self.seed)  # noqa: S311 - repeatable, not secret
        total = len(self.image)
        places = [*range(0, min(64, total), 8), *range(max(0, total - 64), total, 16)]
        places += [dice.randrange(total) for _ in range(count)]
        for place in places:
            data = bytearray(self.image)
            data[place] ^= dice.randrange(1, 256)
            self.opens(bytes(data), f"byte {place} of {total} changed", shorter=False)

    def opens(self, data: bytes, where: str, *, shorter: bool) -> None:
        """A bad image: right bytes or ImageError, and `verify` sees what reading it shows."""
        clause = "a damaged image gives right bytes or ImageError"
        checked = "checksums" in self.fmt.features
        for recover in (False, True):
            try:
                reader = self.fmt.open(MemoryStorage(data, "checked image"), recover=recover)
            except ImageError:
                continue
            except Exception as exc:
                raise AssertionError(f"{self.clauses.what}: {clause}; {where}: {exc!r}") from exc
            with reader:
                wrong = self.wrong(reader, clause, where, prefix=shorter and not self.mark)
                by_law = checked or (shorter and (not self.mark or not recover))
                if wrong == "bytes" and by_law and not recover:
                    self.clauses.broken(clause, f"{where}: other bytes")
                self.finds(reader, wrong, where, recover=recover)

    def wrong(self, reader: ImageReader, clause: str, where: str, *, prefix: bool) -> str:
        """What reading all shows: "" if it is right, "error", or "bytes"."""
        try:
            content = case.read_all(reader)
        except ImageError:
            return "error"
        except Exception as exc:
            raise AssertionError(f"{self.clauses.what}: {clause}; {where}: {exc!r}") from exc
        wanted = self.sample.content[: len(content)] if prefix else self.sample.content
        return "" if content == wanted else "bytes"

    def finds(self, reader: ImageReader, wrong: str, where: str, *, recover: bool) -> None:
        """`verify` never raises on damage, and at STORED or deeper it sees what reading shows."""
        for depth in reader.depths():
            try:
                findings = list(reader.verify(depth, lambda _: None))
            except Exception as exc:
                clause = "verify() reports damage and never raises it"
                raise AssertionError(f"{self.clauses.what}: {clause}; {where}: {exc!r}") from exc
            shape = all(isinstance(finding, Finding) for finding in findings)
            self.clauses.require(shape, "verify() yields Finding objects", where)
            if wrong and depth >= Depth.STORED and not recover:
                clause = f"verify() at {depth.name} finds damage that reading shows"
                self.clauses.require(bool(findings), clause, where)

    def power_cuts(self) -> None:
        if not self.mark:
            return
        storage = self.write(self.sample, self.options)
        count = storage.operations
        dice = random.Random(self.seed)  # noqa: S311 - repeatable, not secret
        moments = set(range(max(0, count - 8), count + 1)) | {0, 1}
        moments |= {dice.randrange(count) for _ in range(_CUTS)}
        clause = "after a power cut an image is refused, recognised as incomplete, or whole"
        for cut in storage.cuts(subsets=3, torn=True, seed=self.seed, moments=sorted(moments)):
            self.never_whole(bytes(cut.storage.data), clause, cut.description)
