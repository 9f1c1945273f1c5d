from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from vsssnap._win32 import management_protocols, protocols, requester_protocols, writer_protocols
from vsssnap._win32._ffi import ffi


def tables() -> Iterator[tuple[type, str]]:
    """Every Protocol with methods, and the structure of function pointers that it describes."""
    modules = (protocols, requester_protocols, writer_protocols, management_protocols)
    for name, found in (item for module in modules for item in vars(module).items()):
        if not inspect.isclass(found) or found.__module__ not in {module.__name__ for module in modules}:
            continue
        if any(inspect.isfunction(member) for member in vars(found).values() if member is not None):
            methods = [key for key in vars(found) if not key.startswith("_")]
            if methods:
                yield found, name if name.endswith("Vtbl") else f"{name.upper()}_FUNCTIONS"


def methods(protocol: type) -> dict[str, Any]:
    return {
        name: member
        for name, member in vars(protocol).items()
        if not name.startswith("_") and inspect.isfunction(member)
    }


@pytest.mark.parametrize(
    ("protocol", "table"), list(tables()), ids=lambda value: getattr(value, "__name__", value)
)
def test_protocol_matches_the_declarations(protocol: type, table: str) -> None:
    fields = dict(ffi.typeof(table).fields)
    for name, method in methods(protocol).items():
        assert name in fields, f"{table} has no {name}"
        python = len(inspect.signature(method).parameters) - 1  # without self
        assert python == len(fields[name].type.args), name
        nothing = fields[name].type.result.cname == "void"
        assert (inspect.signature(method).return_annotation == "None") == nothing, name


def test_all_libraries_and_all_called_interfaces_are_compared() -> None:
    compared = {protocol.__name__ for protocol, _ in tables()}
    assert compared >= {"Kernel32", "Advapi32", "Ole32", "Oleaut32", "Vssapi", "IVssBackupComponentsVtbl"}
    assert sum(len(methods(protocol)) for protocol, _ in tables()) > 90
