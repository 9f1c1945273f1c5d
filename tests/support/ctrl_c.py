"""Ctrl-C at a chosen one of the places at which the interpreter looks for signals."""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

# The interpreter runs signal handlers after a call, at a jump back and where a function begins.
_LOOKS = ("CALL", "JUMP_BACKWARD", "RESUME")


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
        if last.startswith(_LOOKS) and before[frame] != "PUSH_EXC_INFO":  # a call that raised does not look
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
