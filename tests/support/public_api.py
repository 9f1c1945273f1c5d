"""The public interface as text: what `tests/meta/public_api.txt` holds.

``python tests/support/public_api.py`` writes that file anew.
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import sys
import types
from collections.abc import Iterator
from pathlib import Path

# Stable and public; everything else may change without notice.
MODULES = (
    "vsssnap",
    "vsssnap.errors",
    "vsssnap.quiesce",
    "vsssnap.providers",
    "vsssnap.formats",
    "vsssnap.volumes",
    "vsssnap.vss",
    "vsssnap.testing",
    "vsssnap.testing.fake_vss",
)

# Announced and not yet written.  A name goes when its module comes; a test sees to it.
NOT_YET: frozenset[str] = frozenset()

PRESENT = tuple(name for name in MODULES if name not in NOT_YET)

GOLDEN = Path(__file__).resolve().parents[1] / "meta" / "public_api.txt"


def defined_names(module_name: str) -> set[str]:
    """The public names that a module's text defines or hands on as ``X as X``."""
    names: set[str] = set()
    body = ast.parse(inspect.getsource(importlib.import_module(module_name))).body
    for node in body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            # Names that are handed on when they are asked for; others there have no other name.
            body.extend(each for each in node.body if isinstance(each, ast.ImportFrom))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update(alias.asname for alias in node.names if alias.asname == alias.name)
    return {name for name in names if not name.startswith("_")}


def public_names(module_name: str) -> list[str]:
    """What a public module offers: its ``__all__``, or every ``X as X`` of one that only gathers."""
    module = importlib.import_module(module_name)
    return sorted(getattr(module, "__all__", None) or defined_names(module_name))


def describe() -> list[str]:
    """One line for every public name and every public member, in a fixed order."""
    # The same object under two public names is described once: where it was defined.
    homes: dict[int, str] = {}
    for module_name in sorted(PRESENT, key=lambda name: -name.count(".")):
        module = importlib.import_module(module_name)
        for name in public_names(module_name):
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isroutine(value):
                homes.setdefault(id(value), f"{module_name}.{name}")
    lines = []
    for module_name in PRESENT:
        module = importlib.import_module(module_name)
        for name in public_names(module_name):
            value, full = getattr(module, name), f"{module_name}.{name}"
            home = homes.get(id(value), full)
            lines += [f"{full} = {home}"] if home != full else _value(full, value)
    return lines


def _value(full: str, value: object) -> list[str]:
    if inspect.isclass(value):
        return [_class_line(full, value), *(f"{full}.{member}" for member in _members(value))]
    if inspect.isroutine(value):
        return [f"{full}{_signature(value)}"]
    if isinstance(value, types.ModuleType):
        return [f"{full}: module"]
    alias = type(value).__module__ in ("typing", "types", "collections.abc")
    return [f"{full}: {'type alias' if alias else type(value).__name__}"]


def _class_line(full: str, cls: type) -> str:
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base is not object)
    line = f"class {full}({bases})"
    if issubclass(cls, enum.Enum) or getattr(cls, "_is_protocol", False):
        return line
    return f"{line}: {_signature(cls)}"


class _Text:
    """An annotation as its author wrote it, without the quotes of a postponed one."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _bare(annotation: object) -> object:
    return _Text(annotation) if isinstance(annotation, str) else annotation


def _signature(value: object) -> str:
    assert callable(value)
    try:
        signature = inspect.signature(value)
    except ValueError:
        return "(...)"  # a built-in that does not say
    parameters = [p.replace(annotation=_bare(p.annotation)) for p in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=_bare(signature.return_annotation)))


def _members(cls: type) -> Iterator[str]:
    """The class's own public members, and those of its private bases."""
    if issubclass(cls, enum.Enum):
        yield from (f"{member.name} = {member.value!r}" for member in cls)
    found: dict[str, object] = {}
    for base in reversed(cls.__mro__):
        if base is cls or (base.__module__.startswith("vsssnap") and base.__name__.startswith("_")):
            found |= vars(base)
            found |= dict.fromkeys(inspect.get_annotations(base).keys() - vars(base).keys(), "attribute")
    enum_names = {member.name for member in cls} if issubclass(cls, enum.Enum) else set()
    for name in sorted(found):
        if name.startswith("_") or name in enum_names:
            continue
        value = found[name]
        if isinstance(value, property):
            yield f"{name}: property{_settable(value)}"
        elif isinstance(value, (classmethod, staticmethod)):
            yield f"{name}{_signature(value.__func__)} ({type(value).__name__})"
        elif inspect.isroutine(value):
            yield f"{name}{_signature(value)}"
        else:
            yield f"{name}: attribute"


def _settable(value: property) -> str:
    return "" if value.fset is None else ", settable"


def main() -> int:
    """Write the golden list."""
    text = "\n".join(describe()) + "\n"
    GOLDEN.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{GOLDEN}: {text.count(chr(10))} lines\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
