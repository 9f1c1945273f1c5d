"""What of a source goes into an image: options that several commands share, and their effect."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vsssnap.errors import UnknownFormatError, UsageError, VssSnapError

if TYPE_CHECKING:
    from vsssnap.blocks.reader import BlockReader
    from vsssnap.cli.output import Output
    from vsssnap.snapshot import Snapshot
    from vsssnap.volumes.policy import Exclusion, UnusedPolicy

FuncT = TypeVar("FuncT", bound=Callable[..., Any])

# The values of `Exclusion`; --help is to load no parser of file systems.
EXCLUSIONS = ("page-file", "swap-file", "hibernation", "shadow-storage", "not-in-snapshot")


def view_options(function: FuncT) -> FuncT:
    """The options that choose a part of a source."""
    for option in reversed(
        (
            click.option(
                "--unused",
                type=click.Choice(["zero", "read"]),
                help="Blocks that no file uses: leave them out (zero; the default), or read them too "
                "(the default with --live).",
            ),
            click.option(
                "--exclude",
                "exclude",
                type=click.Choice(EXCLUSIONS),
                multiple=True,
                help="Leave out only this of what Windows makes anew.  Repeatable; by default all, "
                "and nothing with --live.",
            ),
            click.option("--no-exclude", is_flag=True, help="Leave nothing of that out."),
            click.option(
                "--partition",
                type=click.IntRange(min=1),
                metavar="NUMBER",
                help="Take this partition of a disk; `vsssnap info` shows those of an image.",
            ),
            click.option(
                "--volume",
                metavar="NAME",
                help="Take this logical volume of LVM (NAME or GROUP/NAME) on a disk, or on the partition "
                "that --partition names.",
            ),
        )
    ):
        function = option(function)
    return function


@dataclass(frozen=True)
class Part:
    """A partition of a disk, or a logical volume on it.

    Attributes:
        partition: Its number, or that of one that the logical volume lies on; None for any.
        volume: Name of the logical volume; "" for the partition itself.
    """

    partition: int | None
    volume: str = ""

    def of(self, disk: BlockReader, path: str) -> BlockReader:
        """It as a reader that owns the disk.

        Args:
            disk: The disk.
            path: Name of the disk, for the metadata.

        Raises:
            UsageError: there is no such part.
            ImageError: there is no partition table, or it or what LVM has there is damaged.
        """
        from vsssnap.blocks.concat import ConcatReader
        from vsssnap.blocks.window import WindowReader
        from vsssnap.volumes.lvm.finding import find_volume
        from vsssnap.volumes.partitions import Partitions
        from vsssnap.volumes.wrapping import unwrapped

        said = unwrapped(disk.metadata)
        said = said.replace(notes=(*said.notes, f"it is {self} of {path}"))
        if not self.volume:
            assert self.partition is not None  # noqa: S101 - one of them is named
            found = Partitions(disk)[self.partition]
            found.open()  # raises where the disk ends before it does
            return WindowReader(disk, found.offset, found.length, owned=True, metadata=said)
        inside = find_volume(disk, self.volume, self.partition).open()
        # Nothing of the disk behind it, for the sake of closing that too.
        return ConcatReader([inside, WindowReader(disk, 0, 0, owned=True)], owned=True, metadata=said)

    def __str__(self) -> str:
        return f"logical volume {self.volume}" if self.volume else f"partition {self.partition}"


def part_of(given: dict[str, Any]) -> Part | None:
    """What ``--partition`` and ``--volume`` name, if they do."""
    if given["partition"] is None and not given["volume"]:
        return None
    return Part(given["partition"], given["volume"] or "")


@dataclass(frozen=True)
class Wanted:
    """What the options ask for."""

    unused: UnusedPolicy
    exclude: tuple[Exclusion, ...]
    part: Part | None

    def of_snapshot(self, snapshot: Snapshot, volume: str) -> BlockReader:
        """A reader of a snapshot's volume, or of a part of it."""
        from vsssnap.volumes.policy import UnusedPolicy

        if self.part is None:
            return snapshot.open(volume, unused=self.unused, exclude=self.exclude)
        return self.of(snapshot.open(volume, unused=UnusedPolicy.READ, exclude=()), volume)

    def of(self, reader: BlockReader, path: str) -> BlockReader:
        """A reader, or a part of it, without what is to be left out; closing it closes ``reader``.

        Args:
            reader: What was opened.
            path: Its name, for the metadata of a part.
        """
        from vsssnap.volumes import UnusedPolicy, view_of

        try:
            if self.part is not None:
                reader = self.part.of(reader, path)
            if self.unused is UnusedPolicy.READ and not self.exclude:
                return reader
            return view_of(reader, unused=self.unused, exclude=self.exclude, owned=True)
        except BaseException:
            reader.close()
            raise


def wanted(given: dict[str, Any], *, live: bool) -> Wanted:
    """Read the options.

    Raises:
        UsageError: they contradict each other.
    """
    from vsssnap.volumes.policy import DEFAULT_EXCLUSIONS, Exclusion, UnusedPolicy

    if given["exclude"] and given["no_exclude"]:
        raise UsageError("--exclude and --no-exclude contradict each other", hint="pass one of them")
    # A live volume goes on being written: the map would be older than the blocks it is about.
    unused = UnusedPolicy(given["unused"] or ("read" if live else "zero"))
    exclude: tuple[Exclusion, ...] = () if live or given["no_exclude"] else DEFAULT_EXCLUSIONS
    if given["exclude"]:
        exclude = tuple(Exclusion(name) for name in given["exclude"])
    return Wanted(unused, exclude, part_of(given))


def disk_image(path: str, *, part: Part | None, format: str | None = None) -> BlockReader | None:
    """An image that holds the disk of which a part is wanted; None if ``path`` is to be snapshotted.

    ``format`` is that of the image; by default it is recognised.  A raw file is read through a
    snapshot like a device, for it may be in use.
    """
    from vsssnap.cli.awaited import opened_image

    try:
        if part is None or not stat.S_ISREG(os.stat(path).st_mode):
            return None
        reader = opened_image(path, format)
    except UnknownFormatError:
        return None
    except VssSnapError:
        raise  # an image, and what is wrong with it is said best by this
    except (OSError, ValueError):
        return None
    if reader.format == "raw":
        reader.close()
        return None
    return reader


def say_left_out(out: Output, reader: BlockReader) -> None:
    """Tell why every block of a volume is kept, if so."""
    for note in reader.metadata.notes:
        if "every block is kept" in note:
            out.say(f"  {note}")
