"""The binding against other people's headers: mingw-w64's, compiled by its C++ compiler.

Everything that `vsssnap._win32` declares is put into one C++ source: slots as pointers to
virtual members of the headers' own classes, with our argument types, so that a wrong type does not
compile; sizes, offsets, ids and constants as static assertions.  What a slot's number is, the
compiler writes into the assembly.
"""

from __future__ import annotations

import enum
import inspect
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import requirements
from vsssnap._win32 import build_ffi, constants, guids
from vsssnap._win32._ffi import ffi
from vsssnap._win32.hresult import HResult

pytestmark = pytest.mark.lab

COMPILER = "x86_64-w64-mingw32-g++"

# Known differences, each with its reason.
#
# mingw-w64 writes the 1-byte bool of Microsoft's headers as MIDL's boolean, which is as wide.
# A reference is a pointer to the machine.  The XML document is of no use to us.
SPELLINGS = {"bool": "boolean", "const GUID *": "REFIID", "void **": "void **"}
ARGUMENTS = {
    ("IVssExamineWriterMetadata", "GetDocument"): "IXMLDOMDocument **",
    ("IUnknown", "QueryInterface"): "REFIID, void **",
}
# Microsoft's class has two bases, IVssWriterComponents and IUnknown, and so two vtables; WIDL, which
# makes mingw-w64's headers, cannot express that and leaves the second out.  Its slots are compared.
LACKING_STRUCTURES = {"IVssWriterComponentsExt"}
# winerror.h has these as Win32 codes; as HRESULTs they are HRESULT_FROM_WIN32 of them.
FROM_WIN32 = {
    HResult.RPC_S_SERVER_UNAVAILABLE: "RPC_S_SERVER_UNAVAILABLE",
    HResult.RPC_S_CALL_FAILED: "RPC_S_CALL_FAILED",
    HResult.RPC_S_CALL_FAILED_DNE: "RPC_S_CALL_FAILED_DNE",
    HResult.ERROR_SERVICE_DISABLED: "ERROR_SERVICE_DISABLED",
}
# Text, which the preprocessor cannot compare.
TEXTS = {"SE_BACKUP_NAME", "SE_RESTORE_NAME"}

PROLOGUE = """
#include <windows.h>
#include <winioctl.h>
#include <winevt.h>
#include <winsvc.h>
#include <objbase.h>
#include <oleauto.h>
#include <msxml.h>
#include <vss.h>
#include <vswriter.h>
#include <vsbackup.h>
#include <vsmgmt.h>
#include <vsadmin.h>
#include <cstddef>
#include <type_traits>
#define PIN(...) static_assert(__VA_ARGS__, #__VA_ARGS__)

template <class T> constexpr size_t width() {
    if constexpr (std::is_void_v<T>) return 0;
    else if constexpr (std::is_reference_v<T>) return sizeof(void *);
    else return sizeof(T);
}
template <class T> struct Shape;
template <class R, class... A> struct Shape<R (*)(A...)> {
    template <class... W> static constexpr bool is(size_t result, W... widths) {
        if constexpr (sizeof...(W) != sizeof...(A)) return false;
        else return result == width<R>() && (true && ... && (size_t(widths) == width<A>()));
    }
};
"""


def blocks(kind: str) -> Iterator[tuple[str, str, list[build_ffi.Function]]]:
    folder = Path(build_ffi.__file__).parent / "cdef"
    for header in build_ffi.HEADERS:
        source = re.sub(r"/\*.*?\*/", "", (folder / header).read_text("ascii"), flags=re.DOTALL)
        pattern = r"^(interface|library) (\w+)(?: : (\w+))? \{(.*?)^\};"
        for found, name, base, body in re.findall(pattern, source, re.DOTALL | re.MULTILINE):
            if found == kind:
                yield name, base, build_ffi.functions(body)


def slot_lines() -> Iterator[str]:
    for interface, _, functions in blocks("interface"):
        for result, name, arguments in functions:
            if (interface, name) in ARGUMENTS:
                arguments = ARGUMENTS[interface, name]
            else:
                arguments = re.sub(
                    "|".join(map(re.escape, SPELLINGS)), lambda found: SPELLINGS[found[0]], arguments
                )
            pointer = f"STDMETHODCALLTYPE {interface}::*slot_{interface}_{name}"
            declared = f"{result} ({pointer})({arguments})"
            yield f'extern "C" {{ extern {declared}; {declared} = &{interface}::{name}; }}'


def structures() -> list[str]:
    typedefs, structs, unions = ffi.list_types()
    del structs, unions
    return [
        name
        for name in typedefs
        if ffi.typeof(name).kind in ("struct", "union")
        and not name.endswith(("Vtbl", "_FUNCTIONS"))
        and name not in LACKING_STRUCTURES
        and not name.startswith("IVss")
        and name != "IUnknown"
    ]


def layout_lines() -> Iterator[str]:
    for name in structures():
        yield f"PIN(sizeof({name}) == {ffi.sizeof(name)});"
        for field, _ in ffi.typeof(name).fields:
            yield f"PIN(offsetof({name}, {field}) == {ffi.offsetof(name, field)});"
    typedefs, _, _ = ffi.list_types()
    for name in typedefs:
        if ffi.typeof(name).kind == "primitive":
            yield f"PIN(sizeof({name}) == {ffi.sizeof(name)});"


def guid_lines() -> Iterator[str]:
    for name, value in guids.IIDS.items():
        yield from pinned(f"__uuidof({name})", value.bytes_le)
    for name, value in guids.CLSIDS.items():
        yield from pinned(f"__uuidof({name})", value.bytes_le)


def pinned(expression: str, raw: bytes) -> Iterator[str]:
    numbers = [int.from_bytes(raw[a:b], "little") for a, b in ((0, 4), (4, 6), (6, 8))]
    for field, number in zip(("Data1", "Data2", "Data3"), numbers, strict=True):
        yield f"PIN({expression}.{field} == {number}u);"
    for index, byte in enumerate(raw[8:]):
        yield f"PIN({expression}.Data4[{index}] == {byte});"


def constant_lines() -> Iterator[str]:
    for name, found in vars(constants).items():
        if inspect.isclass(found) and issubclass(found, enum.IntEnum | enum.IntFlag) and found.__members__:
            for member in found:
                yield f"PIN((unsigned long)({member.name}) == {int(member)}ul);"
        elif isinstance(found, int) and not name.startswith("_"):
            yield f"PIN((unsigned long)({name}) == {found & 0xFFFFFFFF}ul);"
    for code in HResult:
        spelt = f"HRESULT_FROM_WIN32({FROM_WIN32[code]})" if code in FROM_WIN32 else code.name
        yield f"PIN((unsigned long)({spelt}) == {int(code)}ul);"


def function_lines() -> Iterator[str]:
    for library, _, functions in blocks("library"):
        fields = dict(ffi.typeof(f"{library.upper()}_FUNCTIONS").fields)
        for _, name, _ in functions:
            found = fields[name].type
            result = 0 if found.result.cname == "void" else ffi.sizeof(found.result)
            widths = ", ".join(str(n) for n in (result, *(ffi.sizeof(argument) for argument in found.args)))
            yield f"PIN(Shape<decltype(&{name})>::is({widths}));"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The assembly of everything; that it compiles is most of the proof."""
    requirements.require_lab(COMPILER, root=False)
    folder = tmp_path_factory.mktemp("headers")
    lines = [PROLOGUE, *slot_lines(), *layout_lines(), *guid_lines(), *constant_lines(), *function_lines()]
    source, assembly = folder / "all.cpp", folder / "all.s"
    source.write_text("\n".join(lines) + "\n")
    run(source, "-S", "-o", str(assembly))
    return assembly.read_text()


def run(source: Path, *options: str) -> None:
    command = [COMPILER, "-std=c++17", "-D_WIN32_WINNT=0x0A00", "-Wno-attributes", *options, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert not done.returncode, "\n".join(["the headers differ:", *(errors[:20] or [done.stderr])])


def test_every_slot_is_where_the_headers_have_it(compiled: str) -> None:
    # A pointer to a virtual member is 1 + the slot's offset in the vtable (Itanium C++ ABI 2.3).
    found = {
        name: (int(value) - 1) // 8
        for name, value in re.findall(r"^slot_(\w+):\s+\.quad\s+(\d+)", compiled, re.MULTILINE)
    }
    ours = {
        f"{interface}_{name}": [slot for slot, _ in ffi.typeof(f"{interface}Vtbl").fields].index(name)
        for interface, _, functions in blocks("interface")
        for _, name, _ in functions
    }
    assert found == ours
    assert len(ours) > 170


def test_sizes_offsets_ids_and_constants_are_those_of_the_headers(compiled: str) -> None:
    assert compiled, "static assertions were compiled"
    counted = [len(list(lines())) for lines in (layout_lines, guid_lines, constant_lines, function_lines)]
    assert all(count > 25 for count in counted), counted


def test_no_interface_has_more_slots_in_the_headers(tmp_path: Path) -> None:
    requirements.require_lab(COMPILER, root=False)
    source = tmp_path / "counts.cpp"
    counts = [
        f"PIN(sizeof({interface}Vtbl) == {ffi.sizeof(f'{interface}Vtbl')});"
        for interface, _, _ in blocks("interface")
    ]
    source.write_text("\n".join(["#define CINTERFACE", PROLOGUE, *counts]) + "\n")
    run(source, "-fsyntax-only")
    assert len(counts) > 20


def test_a_wrong_number_would_be_found(tmp_path: Path) -> None:
    requirements.require_lab(COMPILER, root=False)
    source = tmp_path / "wrong.cpp"
    source.write_text(PROLOGUE + "PIN(sizeof(VSS_SNAPSHOT_PROP) == 112);\n")
    done = subprocess.run([COMPILER, "-std=c++17", "-fsyntax-only", source], capture_output=True, check=False)
    assert b"static assertion failed" in done.stderr
