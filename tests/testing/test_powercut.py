"""What a power cut may leave is worked out from the recorded operations, and nothing else is."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from vsssnap.testing import PowerCut


def record(*operations: tuple[object, ...], first: bytes = b"") -> PowerCut:
    """A recorder after some operations, each a method and its arguments."""
    disk = PowerCut(first)
    for method, *arguments in operations:
        getattr(disk, str(method))(*arguments)
    return disk


def test_plain_cuts_are_every_beginning() -> None:
    disk = record(("append", [b"ab", b"c"]), ("pwrite", b"X", 1), ("truncate", 2), ("append", [b"d"]))
    assert [bytes(cut.storage.data) for cut in disk.cuts()] == [b"", b"abc", b"aXc", b"aX", b"aXd"]
    assert [cut.after for cut in disk.cuts()] == [0, 1, 2, 3, 4]
    assert disk.content() == b"aXd"


def test_cuts_begin_with_what_was_there() -> None:
    disk = record(("pwrite", b"X", 1), first=b"old")
    assert [bytes(cut.storage.data) for cut in disk.cuts()] == [b"old", b"oXd"]


def test_flush_counts_as_an_operation_and_saves_what_came_before() -> None:
    disk = record(("append", [b"a"]), ("flush",), ("append", [b"b"]), ("append", [b"c"]))
    assert (disk.operations, disk.unflushed) == (4, 2)
    lost = {cut.lost for cut in disk.cuts(subsets=50)}
    assert (0,) in lost, "before the flush the first may be lost"
    assert {number for numbers in lost for number in numbers} == {0, 2, 3}
    after = [bytes(cut.storage.data) for cut in disk.cuts(subsets=50) if cut.after >= 2]
    assert all(data.startswith(b"a") for data in after)


def test_lost_writes_leave_holes() -> None:
    disk = record(("append", [b"ab"]), ("append", [b"cd"]))
    found = {cut.lost: bytes(cut.storage.data) for cut in disk.cuts(subsets=50, moments=[2])}
    assert found == {(): b"abcd", (0,): b"\0\0cd", (1,): b"ab", (0, 1): b""}


def test_all_unflushed_are_lost_at_least_once() -> None:
    disk = record(*(("append", [bytes([n])]) for n in range(10)))
    assert tuple(range(10)) in {cut.lost for cut in disk.cuts(subsets=1)}


def test_torn_write_is_torn_between_sectors() -> None:
    disk = record(("append", [b"x" * 100]), ("append", [b"y" * 1500]))
    seen = {
        bytes(cut.storage.data) for seed in range(30) for cut in disk.cuts(torn=True, seed=seed, moments=[2])
    }
    assert len(seen) > 3
    for data in seen:
        assert data[:100] == b"x" * 100
        pieces = [data[100:512], data[512:1024], data[1024:1536], data[1536:1600]]
        for piece in pieces:
            assert set(piece) <= {0} or set(piece) == {ord("y")}, "a sector is whole or not there"


def test_write_inside_one_sector_is_never_torn() -> None:
    disk = record(("append", [b"x" * 512]), ("pwrite", b"y" * 100, 100))
    assert len(list(disk.cuts(torn=True, moments=[2]))) == 1


def test_same_seed_same_cuts() -> None:
    disk = record(*(("append", [bytes([n]) * 700]) for n in range(8)))

    def told(seed: int) -> list[str]:
        return [cut.description for cut in disk.cuts(subsets=4, torn=True, seed=seed)]

    assert told(1) == told(1) != told(2)


def test_description_says_what_is_lost() -> None:
    disk = record(("append", [b"a"]), ("append", [b"b"]))
    (_, cut) = disk.cuts(subsets=1, moments=[2])
    assert cut.description == "power cut after 2 of 2 operations, 2 unflushed ones lost (0, 1)"


def test_cut_has_a_storage_of_its_own() -> None:
    disk = record(("append", [b"ab"]))
    first, second = disk.cuts()
    first.storage.pwrite(b"zz", 0)
    assert (bytes(second.storage.data), disk.content()) == (b"ab", b"ab")


def test_recorder_is_a_storage() -> None:
    disk = PowerCut(name="disk")
    disk.allocate(10)
    disk.allocate(5)
    assert disk.append([b"xy"]) == 10
    assert disk.pread(3, 9) == b"\0xy"
    assert (disk.size, disk.name, disk.operations, disk.closed) == (12, "disk", 2, False)
    disk.close()
    assert disk.closed


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("pwrite"), st.binary(min_size=1, max_size=5), st.integers(0, 8)),
            st.tuples(st.just("truncate"), st.integers(0, 8)),
            st.tuples(st.just("flush")),
        ),
        max_size=6,
    )
)
def test_every_cut_is_a_choice_that_the_flushes_allow(operations: list[tuple[object, ...]]) -> None:
    """Against all choices, made another way: by running the operations that are kept."""
    disk = record(*operations)
    for cut in disk.cuts(subsets=5):
        safe = max((n + 1 for n in range(cut.after) if operations[n] == ("flush",)), default=0)
        allowed = set()
        for count in range(cut.after - safe + 1):
            for lost in itertools.combinations(range(safe, cut.after), count):
                kept = [operation for n, operation in enumerate(operations[: cut.after]) if n not in lost]
                allowed.add(record(*kept).content())
        assert bytes(cut.storage.data) in allowed
