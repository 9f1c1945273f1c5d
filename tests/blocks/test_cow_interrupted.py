"""Ctrl-C at every place of an instant, a write and a release at which the interpreter looks for signals."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType

import pytest

from cow_volumes import BLOCK, WAIT, shadow_files, volume_of
from ctrl_c import ctrl_c_at
from vsssnap._deadline import Deadline
from vsssnap.blocks.cow import CowInstant, CowVolume
from vsssnap.blocks.cow.chain import Chain
from vsssnap.blocks.cow.engine import CowEngine
from vsssnap.blocks.cow.gate import InstantGate

_PLACES = 400  # more than there are


def can_be_written(volume: CowVolume) -> bool:
    writer = threading.Thread(target=volume.pwrite, args=(b"x" * BLOCK, 0), daemon=True)
    writer.start()
    writer.join(WAIT)
    return not writer.is_alive()


def test_ctrl_c_anywhere_in_an_instant_leaves_no_writer_waiting_and_no_snapshot_behind(
    tmp_path: Path,
) -> None:
    codes = {
        function.__code__
        for function in (
            CowInstant.take,
            CowInstant._take,
            InstantGate.hold,
            InstantGate.let_go,
            InstantGate._pause,
        )
    }
    one, two = volume_of(bytes(4 * BLOCK), tmp_path), volume_of(bytes(4 * BLOCK), tmp_path)
    reached = []
    with one, two:
        before = sorted(os.listdir("/proc/self/fd"))
        for place in range(_PLACES):
            hit: list[str] = []
            with CowInstant((one, two)) as instant:
                try:
                    with ctrl_c_at(place, codes) as hit:
                        taken = instant.take(Deadline(WAIT))
                except KeyboardInterrupt:
                    reached += hit
                    taken = []
            if not hit:
                for snapshot in taken:
                    snapshot.close()
                break
            for volume in (one, two):
                assert can_be_written(volume), f"writers wait for ever after Ctrl-C at {hit}"
                assert volume.shadow_used == 0, f"the snapshot stays after Ctrl-C at {hit}"
            assert sorted(os.listdir("/proc/self/fd")) == before, f"a file stays open after Ctrl-C at {hit}"
    assert any("take" in place for place in reached)
    assert any("let_go" in place for place in reached)
    assert len(reached) < _PLACES
    assert not shadow_files(tmp_path)


def code_of(*functions: Callable[..., object]) -> set[CodeType]:
    """Their code, and that of what they wrap."""
    codes = set()
    for each in functions:
        function: object = each
        while isinstance(function, FunctionType):
            codes.add(function.__code__)
            function = getattr(function, "__wrapped__", None)
    return codes


CHAIN = [each for each in vars(Chain).values() if isinstance(each, FunctionType)]


@pytest.mark.parametrize("limit", [None, 4 * BLOCK], ids=["room", "full"])
def test_ctrl_c_anywhere_in_a_write_leaves_no_other_writer_waiting(tmp_path: Path, limit: int | None) -> None:
    engine = (CowEngine._protect, CowEngine._keep, CowEngine._save, CowEngine._store)
    codes = code_of(*CHAIN, *engine, InstantGate.__enter__)
    reached = []
    for place in range(_PLACES):
        hit: list[str] = []
        with volume_of(b"a" * 8 * BLOCK, tmp_path, shadow_limit=limit) as volume:
            with volume.snapshot():
                try:
                    with ctrl_c_at(place, codes) as hit:
                        volume.pwrite(b"b" * 8 * BLOCK, 0)
                except KeyboardInterrupt:
                    reached += hit
                assert can_be_written(volume), f"writers wait for ever after Ctrl-C at {hit}"
                with volume.snapshot(timeout=WAIT):
                    assert can_be_written(volume), f"writers wait for ever after Ctrl-C at {hit}"
            assert volume.shadow_used == 0, f"space stays set aside after Ctrl-C at {hit}"
        assert not shadow_files(tmp_path), f"a file stays open after Ctrl-C at {hit}"
        if not hit:
            break
    assert any("claim" in place for place in reached)
    assert any("finish" in place for place in reached)
    assert len(reached) < _PLACES


def test_ctrl_c_anywhere_in_a_release_leaves_nothing_to_wait_for(tmp_path: Path) -> None:
    codes = code_of(*CHAIN)
    reached = []
    for place in range(_PLACES):
        hit: list[str] = []
        with volume_of(b"a" * 2 * BLOCK, tmp_path) as volume:
            snapshot = volume.snapshot()
            volume.pwrite(b"b", 0)
            try:
                with ctrl_c_at(place, codes) as hit:
                    snapshot.close()
            except KeyboardInterrupt:
                reached += hit
            assert can_be_written(volume), f"writers wait for ever after Ctrl-C at {hit}"
            with volume.snapshot() as another:
                assert can_be_written(volume), f"writers wait for ever after Ctrl-C at {hit}"
                another.confirm()
        if not hit:
            break
    assert any("sweep" in place for place in reached)
    assert len(reached) < _PLACES
