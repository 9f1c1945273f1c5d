"""A COM library that is made from other people's headers, and the rule that its callers share with it.

Each method of each interface writes down its name and what it got, and fills what it gives with values of
its own.  These follow from a *path*: ``IVssAsync.QueryStatus.0`` is the first argument of that method,
``IVssBackupComponents.GetSnapshotProperties.1.m_eStatus`` a member of what the second points to.  Nothing
here knows the binding: names, slots and types are those of mingw-w64's headers, and a method that was
forgotten would leave a class abstract, which does not compile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

INCLUDE = Path("/usr/share/mingw-w64/include")
_KIT = Path(__file__).resolve().parents[1] / "labs" / "wine_mirror" / "mirror.h"
HEADERS = ("vss.h", "vswriter.h", "vsbackup.h", "vsmgmt.h", "vsadmin.h")
ROUNDS = 8
"""Each slot is called so often, with other values; of two truth values one differs in some round."""

WRITERS = ("IVssCreateWriterMetadata", "IVssWriterImpl", "IVssCreateExpressWriter", "IVssExpressWriter")
"""Interfaces of programs that are writers begin so."""

UNKNOWN = [
    ("HRESULT", "QueryInterface", ["REFIID", "void **"]),
    ("ULONG", "AddRef", []),
    ("ULONG", "Release", []),
]
TWO_VTABLES = "IVssWriterComponentsExt"
"""Microsoft's class has IVssWriterComponents and IUnknown as bases; mingw-w64 leaves the second out."""

Method = tuple[str, str, list[str]]  # result, name, types of the arguments without `this`
Member = tuple[str, str]  # type, name

# What is not listed is 4 bytes wide: enumerations, LONG, DWORD, HRESULT.
WIDTHS = {"BYTE": 1, "boolean": 1, "LONGLONG": 8, "ULONGLONG": 8, "VSS_TIMESTAMP": 8}
IDS = ("VSS_ID", "CLSID", "REFIID")
_BITS = 2**64 - 1


@dataclass(frozen=True)
class Headers:
    """What the headers declare: methods of interfaces, in order and with those of their bases; structures."""

    interfaces: dict[str, list[Method]]
    structures: dict[str, list[Member]]
    unions: frozenset[str]

    @classmethod
    def read(cls) -> Headers:
        """Read them."""
        interfaces: dict[str, list[Method]] = {"IUnknown": UNKNOWN}
        structures: dict[str, list[Member]] = {
            "FILETIME": [("DWORD", f"dw{x}DateTime") for x in ("Low", "High")]
        }
        unions = set()
        for header in HEADERS:
            text = (INCLUDE / header).read_text("ascii")
            # C++ has the classes, C the tables, in the same file; only the former are read.
            pattern = r'^MIDL_INTERFACE\("[^"]*"\)\n(\w+)(?: : public (\w+))?\n\{(.*?)^\};'
            for name, base, body in re.findall(pattern, text, re.DOTALL | re.MULTILINE):
                if not name.startswith(WRITERS):
                    interfaces[name] = [*interfaces.get(base, []), *_methods(body)]
            for kind, body, name in re.findall(
                r"^typedef (struct|union) \w+ \{\n([^{}]*)^\} (\w+);", text, re.DOTALL | re.MULTILINE
            ):
                if "INTERFACE" not in body and name.startswith("VSS_"):
                    structures[name] = re.findall(r"^ +([\w ]+?[ *]+)(\w+);", body, re.MULTILINE)
                    structures[name] = [(kept.strip(), member) for kept, member in structures[name]]
                    if kind == "union":
                        unions.add(name)
        interfaces[TWO_VTABLES] = [*interfaces["IVssWriterComponents"], *UNKNOWN]
        return cls(interfaces, structures, frozenset(unions))


def _methods(body: str) -> Iterator[Method]:
    for result, name, arguments in re.findall(
        r"virtual (\w+) STDMETHODCALLTYPE (\w+)\(\s*(.*?)\) = 0;", body, re.DOTALL
    ):
        types = [re.sub(r"\w+(?: = \w+)?$", "", one.strip()).strip() for one in arguments.split(",")]
        yield result, name, [kept for kept in types if kept]


# The rule; mirror.h has it once more.


def mark(path: str, turn: int) -> int:
    """A number of 64 bits for a path: FNV-1a, and once more multiplied, so that each bit depends on all."""
    value: int = 0xCBF29CE484222325
    for byte in f"{turn}#{path}".encode():
        value = (value ^ byte) * 0x100000001B3 & _BITS
    value = (value ^ value >> 32) * 0x9E3779B97F4A7C15 & _BITS
    return value ^ value >> 32


def flag(path: str, turn: int) -> bool:
    """A truth value."""
    return bool(mark(path, turn) & 1)


def id_bytes(path: str, turn: int) -> bytes:
    """A GUID as it lies in memory."""
    return b"".join(mark(path + half, turn).to_bytes(8, "little") for half in ("", "'"))


def text(path: str, turn: int, *, counted: bool) -> str:
    """A string; a counted one has a zero in it."""
    return f"{path}#{turn}" + ("\0" if counted else "") + "\u00e4\U0001f400"


def chosen(members: list[Member], turn: int) -> Member:
    """Which member of a union is filled."""
    return members[turn % len(members)]


# How values are written down.


def written_number(value: int, width: int) -> str:
    return f"{width}:{value & (1 << 8 * width) - 1:0{2 * width}x}"


def written_text(value: str) -> str:
    return "text:" + value.encode("utf-16-le").hex()


def kind(declared: str, headers: Headers) -> str:
    """What a value of a type is: number, flag, text, counted, id, pointer, or the name of a structure."""
    if declared in headers.structures:
        return declared
    if declared in IDS:
        return "id"
    if declared.endswith("*"):
        return "pointer"
    return {"boolean": "flag", "BSTR": "counted", "LPCWSTR": "text", "VSS_PWSZ": "text"}.get(
        declared, "number"
    )


def given(declared: str) -> str:
    """The type that an argument points to, if the method fills it; else ""."""
    if declared == "PVSSCOMPONENTINFO *":
        return declared
    return declared[:-1].strip() if declared.endswith("*") and not declared.startswith("const ") else ""


def received(declared: str) -> str:
    """The type of what an argument points to that a method reads; else of itself."""
    return {"PVSSCOMPONENTINFO": "VSS_COMPONENTINFO", "const VSS_ID *": "VSS_ID"}.get(declared, declared)


def elements(declared: str, method: str) -> int:
    """How many elements an argument points to."""
    return 2 if declared == "const VSS_ID *" or (method == "Next" and "_PROP" in declared) else 1


def expected(declared: str, path: str, turn: int, headers: Headers) -> str:
    """How a value of a type is written down."""
    what = kind(declared, headers)
    if what in headers.structures:
        members = headers.structures[what]
        if what in headers.unions:
            members = [chosen(members, turn)]
        return "|".join(expected(inner, f"{path}.{name}", turn, headers) for inner, name in members)
    if what == "id":
        return "id:" + id_bytes(path, turn).hex()
    if what == "flag":
        return f"flag:{flag(path, turn):d}"
    if what in ("text", "counted"):
        return written_text(text(path, turn, counted=what == "counted"))
    width = 8 if what == "pointer" else WIDTHS.get(declared, 4)
    return written_number(mark(path, turn), width)


# The library.


def source(headers: Headers, functions: Sequence[str]) -> str:
    """C++ with a class for every interface, and a function in place of each that is named."""
    lines = [f'#include "{_KIT}"', "", *_structures(headers)]
    for interface, methods in headers.interfaces.items():
        bases = "IVssWriterComponents, IUnknown" if interface == TWO_VTABLES else interface
        lines += [
            "",
            f"struct Mirror_{interface} : {bases} {{",
            f'    const char *interface_name = "{interface}";',
        ]
        for result, name, types in methods:
            arguments = ", ".join(f"{one} a{index}" for index, one in enumerate(types))
            lines.append(f"    {result} STDMETHODCALLTYPE {name}({arguments}) override {{")
            lines.append("        Call call(interface_name, __func__);")
            lines += [
                f"        {line}"
                for index, one in enumerate(types)
                for line in _argument(one, name, index, headers)
            ]
            lines += [f"        return call.result<{result}>();", "    }"]
        lines.append(f"}} mirror_{interface};")
    lines += ["", 'extern "C" void *WINAPI MirrorOf(const char *name) {']
    for interface in headers.interfaces:
        first = "IVssWriterComponents" if interface == TWO_VTABLES else interface
        lines.append(
            f'    if (!strcmp(name, "{interface}")) return static_cast<{first} *>(&mirror_{interface});'
        )
    lines += ["    return nullptr;", "}", "", "const char *const functions[] = {"]
    lines += [f'    "{name}",' for name in functions]
    lines += [
        "};",
        "",
        'extern "C" void *WINAPI MirrorFunction(int index) {',
        "    static void *const all[] = {",
    ]
    for index, name in enumerate(functions):
        lines.append(f"        reinterpret_cast<void *>(Echo<{index}, decltype(&{name})>::call),")
    return "\n".join([*lines, "    };", "    return all[index];", "}", ""])


def _structures(headers: Headers) -> Iterator[str]:
    for name, members in headers.structures.items():
        for verb, parameters in (("put", f"const {name} &from"), ("give", f"const Path &path, {name} *to")):
            yield f"static inline void {verb}_{name}({parameters}) {{"
            for index, (declared, member) in enumerate(members):
                condition = f"if (turn % {len(members)} == {index}) " if name in headers.unions else ""
                value = f"from.{member}" if verb == "put" else f'path + "{member}", &to->{member}'
                yield f"    {condition}{verb}_{kind(declared, headers)}({value});"
            yield "}"


def _argument(declared: str, method: str, index: int, headers: Headers) -> Iterator[str]:
    inner, count = given(declared), elements(declared, method)
    if inner == "PVSSCOMPONENTINFO *":
        yield f"give_VSS_COMPONENTINFO(call[{index}], block(a{index}));"
    elif inner:
        verb = f"give_{kind(inner, headers)}"
        for number_of in range(count):
            place = f'call[{index}] + "{number_of}"' if count > 1 else f"call[{index}]"
            yield f"{verb}({place}, a{index} + {number_of});"
    else:
        verb = f"put_{kind(received(declared), headers)}"
        value = f"*a{index}" if declared == "PVSSCOMPONENTINFO" else f"a{index}"
        for number_of in range(count):
            yield f"{verb}({f'a{index}[{number_of}]' if count > 1 else value});"
