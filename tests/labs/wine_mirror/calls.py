"""Runs under the Windows Python: every slot of every interface of the binding, against the mirror beside it.

The types of what is passed are the binding's; what is expected is the rule's of `mirror`, from the headers,
which come as JSON.  Prints what was called and what differed, as JSON.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mirror
from vsssnap._win32 import dll
from vsssnap._win32._ffi import ffi

CANARIES = 0xA5A5A5A5A5A5A5A5
ROOM = 64  # bytes behind what a method fills, which it has to leave alone

library: Any = getattr(ctypes, "WinDLL")("vssapi.dll")  # noqa: B009 - types of Linux do not know it
library.MirrorOf.restype = ctypes.c_void_p
library.MirrorOf.argtypes = (ctypes.c_char_p,)
library.MirrorFunction.restype = ctypes.c_void_p
library.MirrorRecord.restype = ctypes.c_char_p

system: Any = dll.current()
CData = Any


def pointers(interface: str) -> dict[str, CData]:
    """Where an object of the mirror has its vtables: the name of each table, and what to call with."""
    this = ffi.cast(f"{interface} *", library.MirrorOf(interface.encode()))
    if interface == mirror.TWO_VTABLES:
        return {
            "IVssWriterComponents": ffi.addressof(this.components),
            "IUnknown": ffi.addressof(this.unknown),
        }
    return {interface: this}


class Slots:
    """One interface, and one round of calls of all its slots.

    Attributes:
        called: Names of the slots, in the order of the binding.
        wrong: What differed.
    """

    def __init__(self, headers: mirror.Headers, interface: str, turn: int) -> None:
        self.headers, self.interface, self.turn = headers, interface, turn
        self.called: list[str] = []
        self.wrong: list[str] = []
        self._alive: list[object] = []
        self._strings: list[CData] = []

    def run(self) -> None:
        """Call them all."""
        methods = {name: (result, types) for result, name, types in self.headers.interfaces[self.interface]}
        for table, this in pointers(self.interface).items():
            for name, pointer in ffi.typeof(f"{table}Vtbl").fields:
                self.called.append(name)
                if name not in methods:
                    self._differs(name, "the headers do not have it", "")
                elif len(pointer.type.args) != len(methods[name][1]) + 1:
                    self._differs(name, "the number of arguments", str(len(pointer.type.args) - 1))
                else:
                    self._call(this, name, pointer.type, *methods[name])
        for text in self._strings:
            system.oleaut32.SysFreeString(text)

    def _differs(self, where: str, found: str, expected: str) -> None:
        if found != expected:
            self.wrong.append(f"{self.interface}.{where} in round {self.turn}: {found} for {expected}")

    def _call(self, this: CData, name: str, slot: CData, result: str, types: list[str]) -> None:
        path, sent, arguments, given = f"{self.interface}.{name}", [], [], []
        for index, declared in enumerate(types):
            place, count = f"{path}.{index}", mirror.elements(declared, name)
            places = [f"{place}.{n}" for n in range(count)] if count > 1 else [place]
            if inner := mirror.given(declared):
                room = self._room(slot.args[index + 1], count)
                arguments.append(room)
                given.append((f"{name}.{index}", inner, places, room))
            else:
                received = mirror.received(declared)
                sent += [mirror.expected(received, one, self.turn, self.headers) for one in places]
                arguments.append(self._argument(slot.args[index + 1], received, places))
        if not self.turn:
            print(path, file=sys.stderr, flush=True)  # noqa: T201 - the last one is where it crashed, if it did
        returned = getattr(this.lpVtbl, name)(this, *arguments)
        record = library.MirrorRecord().decode()
        self._differs(f"{name}, what it got", record, "|".join([path, *sent]) + "\n")
        width = mirror.WIDTHS.get(result, 4)
        wanted = mirror.written_number(mirror.mark(f"{path}.result", self.turn), width)
        self._differs(
            f"{name}, what it returned", mirror.written_number(returned, ffi.sizeof(slot.result)), wanted
        )
        for where, inner, places, room in given:
            for number, place in enumerate(places):
                self._taken(where, inner, place, room, number)
            whole = ffi.sizeof(ffi.typeof(room).item) * len(places)
            behind = bytes(ffi.buffer(ffi.cast("char *", room) + whole, ROOM))
            self._differs(f"{where}, behind it", behind.hex(), "a5" * ROOM)

    # What is passed.

    def _room(self, pointer: CData, count: int) -> CData:
        """Memory for something that a method fills, as wide as the binding has it, and canaries behind."""
        size = ffi.sizeof(pointer.item)
        made = ffi.new("uint64_t[]", [CANARIES] * ((size * count + ROOM) // 8 + 1))
        self._alive.append(made)
        return ffi.cast(pointer, made)

    def _argument(self, wanted: CData, declared: str, places: list[str]) -> CData:
        """An argument as the binding has its type."""
        if wanted.kind == "pointer" and wanted.item.kind == "struct":
            made = ffi.new(f"{wanted.item.cname}[]", len(places))
            for number, place in enumerate(places):
                self._fill(ffi.addressof(made[number]), declared, place)
        elif wanted.kind == "struct":
            made = ffi.new(f"{wanted.cname} *")
            self._fill(made, declared, places[0])
        else:
            return self._value(wanted, declared, places[0])
        self._alive.append(made)
        return made if wanted.kind == "pointer" else made[0]

    def _fill(self, made: CData, declared: str, place: str) -> None:
        if mirror.kind(declared, self.headers) == "id":
            ffi.memmove(made, mirror.id_bytes(place, self.turn), 16)
            return
        for inner, member in self.headers.structures[declared]:
            wanted = dict(ffi.typeof(made).item.fields)[member].type
            setattr(made, member, self._value(wanted, inner, f"{place}.{member}"))

    def _value(self, wanted: CData, declared: str, place: str) -> CData:
        what = mirror.kind(declared, self.headers)
        if what == "flag":
            return mirror.flag(place, self.turn)
        if what == "counted":
            text = mirror.text(place, self.turn, counted=True)
            units = len(text.encode("utf-16-le")) // 2
            self._strings.append(system.oleaut32.SysAllocStringLen(ffi.new("char16_t[]", text), units))
            return self._strings[-1]
        if what == "text":
            made = ffi.new("char16_t[]", mirror.text(place, self.turn, counted=False))
            self._alive.append(made)
            return made
        return ffi.cast(wanted, mirror.mark(place, self.turn))  # as much of it as the type has room for

    # What is given.

    def _taken(self, where: str, declared: str, place: str, room: CData, number: int) -> None:
        """Compare what a method gave, and give its memory back."""
        if declared == "PVSSCOMPONENTINFO *":
            found, declared, block = room[0], "VSS_COMPONENTINFO", room[0]
        else:
            found, block = room + number, None
        seen = "|".join(self._seen(found, declared))
        self._differs(
            f"{where}, what it gave", seen, mirror.expected(declared, place, self.turn, self.headers)
        )
        if block is not None:
            system.ole32.CoTaskMemFree(block)

    def _seen(self, found: CData, declared: str) -> Iterator[str]:
        """How what lies at an address is written down."""
        what = mirror.kind(declared, self.headers)
        kept = ffi.typeof(found).item
        if what in self.headers.structures:
            members = self.headers.structures[what]
            if [name for name, _ in kept.fields] != [name for _, name in members]:
                yield "other members"
                return
            if what in self.headers.unions:
                members = [mirror.chosen(members, self.turn)]
            for inner, member in members:
                yield from self._seen(ffi.addressof(found[0], member), inner)
        elif what == "id":
            yield "id:" + bytes(ffi.buffer(found, ffi.sizeof(kept))).hex()
        elif what == "flag":
            yield f"flag:{int(found[0])}"
        elif what == "text":
            yield mirror.written_text(ffi.string(found[0]))
            system.ole32.CoTaskMemFree(found[0])
        elif what == "counted":
            yield mirror.written_text(ffi.unpack(found[0], system.oleaut32.SysStringLen(found[0])))
            system.oleaut32.SysFreeString(found[0])
        else:
            yield mirror.written_number(int(ffi.cast("uintptr_t", found[0])), ffi.sizeof(kept))


def functions(names: list[str], turn: int) -> Iterator[str]:
    """Call each function of a library with the binding's type of it; what differs.

    How wide each argument and the result are, the compiler writes into the record.
    """
    types = {}
    for typedef in ffi.list_types()[0]:
        if typedef.endswith("_FUNCTIONS"):
            types.update({name: field.type for name, field in ffi.typeof(typedef).fields})
    for index, name in enumerate(names):
        kind = types[name]
        arguments, expected = [], [name]
        for number, one in enumerate(kind.args):
            value = mirror.mark(f"{name}.{number}", turn)
            arguments.append(ffi.cast(one, value))
            expected.append(mirror.written_number(value, ffi.sizeof(one)))
        returned = ffi.cast(kind, library.MirrorFunction(index))(*arguments)
        found = library.MirrorRecord().decode().rstrip("\n").split("|")
        if kind.result.kind != "void":
            width = ffi.sizeof(kind.result)
            expected += [mirror.written_number(mirror.mark(f"{name}.result", turn), width)] * 2
            found.append(mirror.written_number(int(ffi.cast("uintptr_t", returned)), width))
        if found != expected:
            yield f"{name} in round {turn}: {found} for {expected}"


def main(plan: Path) -> dict[str, object]:
    kept = json.loads(plan.read_text("ascii"))
    headers = mirror.Headers(kept["interfaces"], kept["structures"], frozenset(kept["unions"]))
    watched = bool(library.LabWatch())
    before = library.MirrorLeft()
    called: dict[str, list[str]] = {}
    wrong: list[str] = []
    for turn in range(mirror.ROUNDS):
        library.MirrorTurn(turn)
        wrong += functions(kept["functions"], turn)
        for interface in headers.interfaces:
            slots = Slots(headers, interface, turn)
            slots.run()
            assert called.setdefault(interface, slots.called) == slots.called
            wrong += slots.wrong
    left = library.MirrorLeft() - before
    # That differences are seen: now the mirror goes by another round.
    library.MirrorTurn(mirror.ROUNDS)
    seen = list(functions(kept["functions"], 0))
    for interface in headers.interfaces:
        slots = Slots(headers, interface, 0)
        slots.run()
        seen += slots.wrong
    return {"called": called, "wrong": wrong, "seen": seen, "watched": watched, "left": left}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))))
