"""Tables of device-mapper, as the kernel writes them."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest

from vsssnap._posix import loops, mapped, topology
from vsssnap._posix.loops import Loop, NoLoopError
from vsssnap._posix.mapped import NoTableError, Range

SECTOR = 512


def answer(*targets: tuple[int, int, str, str]) -> bytes:
    """What DM_TABLE_STATUS gives behind its header, as <linux/dm-ioctl.h> has it; sizes in sectors."""
    data = b""
    for start, length, kind, parameters in targets:
        text = parameters.encode() + b"\0"
        size = -(-(40 + len(text)) // 8) * 8
        spec = struct.pack("<QQiI16s", start, length, 0, len(data) + size, kind.encode())
        data += (spec + text).ljust(size, b"\0")
    return data.ljust(4096, b"\0")


def given(monkeypatch: pytest.MonkeyPatch, *targets: tuple[int, int, str, str]) -> None:
    def parsed(rdev: int) -> Iterator[tuple[int, int, str, str]]:
        return mapped.parse(answer(*targets), len(targets))

    monkeypatch.setattr(mapped, "_targets", parsed)


def test_ranges_are_read_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, (0, 8192, "linear", "7:1 2048"), (8192, 100, "linear", "259:3 0"))
    assert mapped.linear(1) == (
        Range(0, 8192 * SECTOR, os.makedev(7, 1), 2048 * SECTOR),
        Range(8192 * SECTOR, 100 * SECTOR, os.makedev(259, 3), 0),
    )


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ([(0, 8, "linear", "7:1 0"), (8, 8, "striped", "2 64 7:1 0 7:2 0")], "a part of it is striped"),
        ([(0, 8, "crypt", "aes-xts-plain64 - 0 7:1 0")], "a part of it is crypt"),
        ([(0, 8, "linear", "7:1")], "its table has '7:1'"),
        ([(8, 8, "linear", "7:1 0")], "a gap at byte 0"),
        ([], "empty"),
    ],
)
def test_other_tables_are_refused(
    targets: list[tuple[int, int, str, str]], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, *targets)
    with pytest.raises(NoTableError, match=said):
        mapped.linear(1)


def test_an_answer_that_is_cut_is_refused() -> None:
    data = answer((0, 8, "linear", "7:1 0"))[:48]
    with pytest.raises(NoTableError, match="longer than"):
        list(mapped.parse(data, 2))


def test_a_volume_on_loop_devices_is_pieces_of_their_file(monkeypatch: pytest.MonkeyPatch) -> None:
    given(
        monkeypatch,
        (0, 10, "linear", "259:1 4"),
        (10, 6, "linear", "259:2 8"),
        (16, 2, "linear", "259:1 100"),
    )
    volume, parts = os.makedev(253, 0), [os.makedev(259, each) for each in (1, 2, 3)]
    found = {
        parts[0]: Loop("/disk", ((1 << 20, 1 << 20),), 512),
        parts[1]: Loop("/disk", ((4 << 20, 1 << 20),), 4096),
    }
    real = loops.find
    monkeypatch.setattr(mapped, "is_mapped", lambda rdev: rdev == volume)
    monkeypatch.setattr(topology, "system_name", lambda rdev: f"loop0p{os.minor(rdev)}")
    monkeypatch.setattr(loops, "find", lambda path, rdev: real(path, rdev) if rdev == volume else found[rdev])
    assert loops.find("/dev/dm-0", volume) == Loop(
        "/disk",
        (
            ((1 << 20) + 4 * SECTOR, 10 * SECTOR),
            ((4 << 20) + 8 * SECTOR, 6 * SECTOR),
            ((1 << 20) + 100 * SECTOR, 2 * SECTOR),
        ),
        4096,
    )
    found[parts[1]] = Loop("/other", ((0, 1 << 20),), 512)
    with pytest.raises(NoLoopError, match="lies in several files, /disk and /other"):
        loops.find("/dev/dm-0", volume)
    given(monkeypatch, (0, 10, "thin", "253:4 1"))
    with pytest.raises(NoLoopError, match="a part of it is thin"):
        loops.find("/dev/dm-0", volume)
