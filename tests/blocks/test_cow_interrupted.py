"""Ctrl-C at every place of the instant at which the interpreter looks for signals."""

from __future__ import annotations

import dis
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from cow_volumes import BLOCK, WAIT, shadow_files, volume_of
from vsssnap._deadline import Deadline
from vsssnap.blocks.cow import CowInstant, CowVolume
from vsssnap.blocks.cow.gate import InstantGate

# The interpreter runs signal handlers after a call, at a jump back and where a function begins.
_LOOKS = ("CALL", "JUMP_BACKWARD", "RESUME")
_PLACES = 400  # more than there are


@contextmanager
def ctrl_c_at(place: int, codes: set[CodeType]) -> Iterator[list[str]]:
    """Raise KeyboardInterrupt at one of the places in some functions; the list says where it was."""
    names = {code: {each.offset: each.opname for each in dis.get_instructions(code)} for code in codes}
    seen, hit = 0, []
    before: dict[FrameType, str] = {}

    def step(frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401 - a trace function
        nonlocal seen
        if event != "opcode":
            return step
        last, before[frame] = before.get(frame, ""), names[frame.f_code].get(frame.f_lasti, "")
        if last.startswith(_LOOKS):
            seen += 1
            if seen == place + 1:
                hit.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
                raise KeyboardInterrupt
        return step

    def call(frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401 - a trace function
        if frame.f_code not in codes:
            return None
        frame.f_trace_opcodes = True
        return step

    outer = sys.gettrace()
    sys.settrace(call)
    try:
        yield hit
    finally:
        sys.settrace(outer)


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
