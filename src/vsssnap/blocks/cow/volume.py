"""`CowVolume`: a volume that a program serves itself, with snapshots."""

from __future__ import annotations

import itertools
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

from vsssnap._arguments import instance, path_text
from vsssnap._deadline import Deadline
from vsssnap._units import KIB, MIB, format_size, is_power_of_two, whole
from vsssnap.blocks.cow.backing import FileBacking, ObjectBacking, SupportsBlockIO
from vsssnap.blocks.cow.engine import CowEngine, WhenFull
from vsssnap.blocks.cow.snapshot import CowSnapshot, new_id
from vsssnap.errors import ClosedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from typing_extensions import Buffer

    from vsssnap.blocks.cow.store import ShadowStore
    from vsssnap.blocks.extent import Extent

_LEAST_LIMIT: Final = 320 * MIB  # what VSS gives a diff area at first

_numbers = itertools.count(1)


class CowVolume:
    """A volume that a program serves itself (a VM store, an emulator, a test), with snapshots.

    ::

        with CowVolume("/srv/vm/disk.img") as volume:
            volume.pwrite(b"...", 4096)
            with volume.snapshot() as snapshot, snapshot.open() as reader:
                save_image(reader, "disk.vsnap")          # while pwrite goes on

    All writes must come through this object; what others write into the file or device shows
    in the snapshots.  Each `pwrite` is wholly before or wholly after any snapshot.  The first write
    to a block after a snapshot reads the block and saves it in *shadow storage* before it writes:
    once, however many snapshots there are.  Thread-safe; no lock is held during I/O, and two
    writers wait for each other only over a block that one of them is saving.

    **Memory**: two bits for each block below the highest written one of each 32768 (8 KiB for 2 GiB
    of volume with blocks of 64 KiB), for each snapshot, and up to 1 MiB for each writing thread.

    **Shadow storage** is an unnamed sparse file for each snapshot, so a killed process leaves
    nothing.  Originals that are all zero take no space.  It is freed when the snapshot is closed;
    but what an older, living snapshot may need stays until that one is closed too.

    A forked child cannot use the volume or its snapshots (UsageError).

    Attributes:
        name: Its name in messages, and its key in ``Snapshot.volumes``.
        size: Bytes; constant.
        sector_size: Logical sector size, bytes.
        block_size: Bytes that are saved together.
        origins: The file or device behind it, if any.
    """

    def __init__(
        self,
        backing: str | os.PathLike[str] | SupportsBlockIO,
        /,
        *,
        name: str | None = None,
        block_size: int = 64 * KIB,
        shadow_folder: str | os.PathLike[str] | None = None,
        shadow_limit: int | None = None,
        when_full: WhenFull = WhenFull.LOSE_SNAPSHOT,
    ) -> None:
        """Open the volume.

        Args:
            backing: A file or block device, or an object with ``size``, ``pread(length, offset)``
                and ``pwrite(data, offset)``, all thread-safe; an object is not closed with the volume.
            name: By default the path, or a number.
            block_size: A power of two, 4 KiB to 16 MiB.  Small blocks save less for small writes
                and need more memory and calls.
            shadow_folder: Where originals are kept; by default beside a file, else the folder of
                temporary files.  Its disk should not be the one that runs full for other reasons.
            shadow_limit: Most bytes that shadow storage may take on disk; by default a tenth of
                the volume, at least 320 MiB.  A file system whose allocation unit is larger than
                ``block_size`` may exceed it by one unit for each writing thread.
            when_full: What happens when an original cannot be saved.

        Raises:
            UsageError: an argument is wrong, or ``backing`` is no volume.
            SnapshotPermissionError: the process may not write ``backing``.
            DeviceReadError: it cannot be opened.
        """
        block_size = whole(block_size, "block_size", least=4 * KIB, most=16 * MIB)
        if not is_power_of_two(block_size):
            raise UsageError(f"block_size is {block_size}, no power of two", hint="use 65536 or another one")
        if shadow_limit is not None:
            shadow_limit = whole(shadow_limit, "shadow_limit")
        try:
            when_full = WhenFull(when_full)
        except ValueError:
            raise UsageError(f"when_full is {when_full!r}", hint="use a member of WhenFull") from None
        if name is not None:
            instance(name, str, "name")
            if not name:
                raise UsageError(f"name is {name!r}", hint="pass a text, or leave it out")
        folder = path_text(shadow_folder) if shadow_folder is not None else ""
        store: FileBacking | ObjectBacking
        if isinstance(backing, str | os.PathLike):
            try:
                default = path_text(backing)
            except UsageError as exc:
                raise UsageError(
                    f"{backing!r} is no volume: {exc.message}", hint="name a file or block device"
                ) from None
            store = FileBacking(default)
        else:
            store = ObjectBacking(backing)
            default = f"cow-{next(_numbers)}"
        folder = folder or store.folder
        if not folder:
            import tempfile  # here, because it is slow to import

            folder = tempfile.gettempdir()
        self._engine: Final = CowEngine(
            store,
            name=name if name is not None else default,
            block_size=block_size,
            folder=folder,
            limit=shadow_limit if shadow_limit is not None else max(store.size // 10, _LEAST_LIMIT),
            when_full=when_full,
        )
        self.name: Final = self._engine.name
        self.size: Final = store.size
        self.sector_size: Final = store.sector_size
        self.block_size: Final = block_size
        self.origins: Final = store.origins

    def pread(self, length: int, offset: int, /) -> bytes:
        """Read the volume as it is now, in `os.pread`'s order of arguments.

        Returns:
            ``length`` bytes, fewer only where the volume ends.  A write that runs meanwhile may
            show in part.

        Raises:
            UsageError: an argument is negative or no whole number.
            ClosedError: the volume is closed.
            DeviceReadError: it cannot be read.
        """
        length = min(whole(length, "length"), max(0, self.size - whole(offset, "offset")))
        self._engine.check_process()
        with self._engine.uses:
            return self._engine.backing.read(length, offset) if length else b""

    def pwrite(self, data: Buffer, offset: int, /) -> int:
        """Write all of ``data``, in `os.pwrite`'s order of arguments.

        Returns:
            Bytes written: all of them.

        Raises:
            UsageError: the range is not inside the volume, or ``data`` is no contiguous buffer.
            ClosedError: the volume is closed.
            TargetError: the volume cannot be written; part of the range may have been.
            InsufficientStorageError: with `WhenFull.FAIL_WRITE`, an original found no room; nothing
                was written.  DeviceReadError and TargetError say the same of one that cannot be read
                or saved.
        """
        try:
            view = memoryview(data).cast("B")
        except (TypeError, ValueError, BufferError) as exc:  # not a buffer, not in one piece, released
            raise UsageError(f"data is not contiguous bytes: {exc}") from None
        if whole(offset, "offset") + len(view) > self.size:
            raise UsageError(
                f"{self.name}: {len(view)} bytes at {offset} go past the end at {self.size}",
                hint="a volume does not grow",
            )
        self._engine.check_process()
        if len(view):
            self._engine.write(view, offset)
        else:
            with self._engine.uses:
                pass
        return len(view)

    def extents(self, offset: int = 0, length: int | None = None) -> Iterator[Extent]:
        """What the volume holds now, ascending and gap-free; see `BlockReader.extents`."""
        rest = max(0, self.size - whole(offset, "offset"))
        length = rest if length is None else min(rest, whole(length, "length"))
        self._engine.check_process()
        with self._engine.uses:
            pass
        return self._engine.extents(offset, length)

    def flush(self) -> None:
        """Return when all that was written is on stable storage.

        Raises:
            TargetError: it cannot be flushed; what was written since the last flush may be lost.
        """
        self._engine.check_process()
        with self._engine.uses:
            self._engine.backing.flush()

    def snapshot(self, *, timeout: float = 60.0) -> CowSnapshot:
        """Keep the volume as it is now: everything that finished `pwrite` calls wrote.

        Args:
            timeout: Seconds to wait for the `pwrite` calls that are running.

        Raises:
            ClosedError: the volume is closed.
            SnapshotTimeoutError: a write did not finish in time.
            SnapshotError: shadow storage cannot be created; the subclass says what to do.
        """
        with CowInstant((self,)) as instant:
            (snapshot,) = instant.take(Deadline(timeout))
            return snapshot

    @property
    def shadow_used(self) -> int:
        """Bytes of shadow storage that are budgeted now, at least what it takes on disk."""
        return self._engine.chain.used

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._engine.uses.closed

    def close(self) -> None:
        """Close the volume.  Idempotent; running calls finish.

        Its snapshots are lost with it: their readers raise SnapshotLostError.
        """
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<CowVolume {self.name!r}, {format_size(self.size)}{', closed' if self.closed else ''}>"

    def __reduce_ex__(self, protocol: Any, /) -> Any:  # noqa: ANN401 - object's own signature
        """A volume belongs to its process."""
        raise UsageError("a CowVolume cannot be pickled or copied", hint="open it again there")


class CowInstant:
    """Snapshots of several volumes at one instant: made ready first, then taken.

    A context manager; leaving it gives back what was made ready and not taken.
    """

    def __init__(self, volumes: Sequence[CowVolume]) -> None:
        """Create shadow storage for each volume.

        Raises:
            ClosedError: a volume is closed.
            SnapshotError: shadow storage cannot be created.
        """
        engines = [volume._engine for volume in volumes]  # noqa: SLF001 - one module
        self._ready: list[tuple[CowEngine, ShadowStore]] = []
        try:
            for engine in engines:
                self._ready.append((engine, engine.new_store()))
        except BaseException:
            self.close()
            raise

    def take(self, deadline: Deadline) -> list[CowSnapshot]:
        """The instant: one snapshot for each volume, in their order; only once.

        Raises:
            SnapshotTimeoutError: a write did not finish in time; nothing was taken.
            CancelledError: the deadline was cancelled.
            ClosedError: a volume was closed.
        """
        taken: list[CowSnapshot] = []
        try:
            self._take(taken, deadline)
        except BaseException:
            for snapshot in taken:
                snapshot.close()
            raise
        return taken

    def _take(self, taken: list[CowSnapshot], deadline: Deadline) -> None:
        holder = object()
        # In one order for all, so that two such instants cannot wait for each other.
        engines = sorted({engine for engine, _ in self._ready}, key=id)
        try:
            for engine in engines:
                engine.gate.hold(holder, deadline, f"wait for writes to {engine.name}")
                if engine.uses.closed:
                    raise ClosedError(f"{engine.name} is closed", hint="open it again")
            snapshot_id, created = new_id(), datetime.now(UTC)
            ready = self._ready
            for engine, store in ready:
                taken.append(CowSnapshot(engine, store, snapshot_id=snapshot_id, created=created))
            self._ready = []  # from here on each is its snapshot's to give back, begun or not
            for engine, store in ready:
                engine.chain.add(store)
        finally:
            try:
                for engine in engines:
                    engine.gate.let_go(holder)
            except BaseException:  # Ctrl-C in there: no writer may wait for ever
                for engine in engines:
                    engine.gate.let_go(holder)
                raise

    def close(self) -> None:
        """Give back what was not taken.  Idempotent."""
        while self._ready:
            _, store = self._ready.pop()
            store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()
