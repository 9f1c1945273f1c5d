"""What stays in memory of what was read."""

from __future__ import annotations

import threading

from vsssnap.formats._cache import ByteCache, SecondUse

SIZE = 100


def test_what_is_asked_for_once_takes_no_room() -> None:
    cache = ByteCache(100 * SIZE)
    values = SecondUse(cache)
    for number in range(50):
        assert values.get(number) is None
        values.put(number, str(number), SIZE)
    assert cache.used == 0
    assert [number for number in range(50) if values.get(number) is not None] == [46, 47, 48, 49]


def test_what_is_asked_for_again_at_once_is_kept() -> None:
    cache = ByteCache(100 * SIZE)
    values = SecondUse(cache)
    values.put("a", 1, SIZE)
    assert values.get("a") == 1
    assert cache.used == SIZE
    for number in range(50):
        values.put(number, number, SIZE)
    assert values.get("a") == 1


def test_what_is_made_a_second_time_is_kept_wherever_it_lies() -> None:
    cache = ByteCache(100 * SIZE)
    values = SecondUse(cache)
    for _ in range(2):
        for number in range(50):
            if values.get(number) is None:
                values.put(number, number, SIZE)
    assert cache.used >= 46 * SIZE
    assert all(values.get(number) == number for number in range(50))


def test_large_values_wait_alone() -> None:
    values = SecondUse(ByteCache(1 << 30))
    values.put("a", 1, 64 << 20)
    values.put("b", 2, 64 << 20)
    assert values.get("a") is None
    assert values.get("b") == 2


def test_what_is_remembered_has_a_bound_and_can_be_forgotten() -> None:
    cache = ByteCache(1 << 20)
    values = SecondUse(cache)
    for number in range(10_000):
        values.put(number, number, SIZE)
    values.put(0, 0, SIZE)  # was made so long ago that nobody knows
    assert cache.used == 0
    values.put(9_000, 0, SIZE)
    assert cache.used == SIZE
    values.clear()
    assert cache.used == 0
    assert values.get(9_000) is None


def test_threads_use_it_together() -> None:
    values = SecondUse(ByteCache(1 << 20))
    wrong: list[object] = []

    def run() -> None:
        for number in range(5000):
            key = number % 97
            found = values.get(key)
            if found is None:
                values.put(key, key * 3, SIZE)
            elif found != key * 3:
                wrong.append((key, found))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
