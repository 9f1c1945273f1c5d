"""``KEY=VALUE`` on the command line, as the options dataclass of a format or provider."""

from __future__ import annotations

import ast
import dataclasses
import enum
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from vsssnap._units import parse_size
from vsssnap.errors import UsageError

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def build(kind: type, pairs: Sequence[str], what: str) -> Any:  # noqa: ANN401 - an object of ``kind``
    """Make an options object, or None if there are no pairs.

    Args:
        kind: A dataclass.
        pairs: ``KEY=VALUE``; a later one wins.  Sizes may have units, "none" stands for None.
        what: Whose options they are, for messages.

    Raises:
        UsageError: an option is unknown, or a value has the wrong type or is refused by ``kind``.
    """
    if not pairs:
        return None
    fields = {item.name: item for item in dataclasses.fields(kind) if item.init}
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in fields:
            problem = f"{what} has no option {name!r}" if equals else f"option {pair!r} is no KEY=VALUE"
            known = ", ".join(description(kind)) or "it has none"
            raise UsageError(problem, hint=f"known: {known}")
        values[name] = _value(kind, fields[name], text, what)
    try:
        return kind(**values)
    except TypeError as exc:
        raise UsageError(f"{what}: {exc}") from None


def description(kind: type) -> list[str]:
    """One text for each option that can be given here: ``level=INT (default 1)``."""
    shown = []
    for item in dataclasses.fields(kind):
        if not item.init:
            continue
        atoms = _atoms(kind, item.type)
        words = [_word(atom) for atom in atoms if _reader(atom) is not None]
        if not words:
            continue
        text = f"{item.name}={'|'.join(words)}"
        if item.default is not dataclasses.MISSING:
            text += f" (default {_shown(item.default)})"
        shown.append(text)
    return shown


def _shown(value: object) -> str:
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _value(kind: type, item: dataclasses.Field[Any], text: str, what: str) -> Any:  # noqa: ANN401
    atoms = _atoms(kind, item.type)
    if text.lower() == "none" and type(None) in atoms:
        return None
    readers = [reader for atom in atoms if (reader := _reader(atom)) is not None]
    if not readers:
        raise UsageError(f"option {item.name} of {what} cannot be given on the command line")
    for reader in readers:
        try:
            return reader(text)
        except ValueError:  # UsageError is one
            continue
    words = " or ".join(_word(atom) for atom in atoms)
    raise UsageError(f"option {item.name} of {what} is {text!r}", hint=f"it takes {words}")


def _atoms(kind: type, annotation: object) -> list[object]:
    """What a field may be: the members of its union.  Understands annotations as text.

    `typing.get_type_hints` fails for a whole class when one annotation names what is only
    imported for type checkers; here such a member alone is left out.
    """
    if isinstance(annotation, str):
        return _named(kind, ast.parse(annotation, mode="eval").body)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [atom for member in typing.get_args(annotation) for atom in _atoms(kind, member)]
    return [annotation]


_KNOWN: dict[str, object] = {"int": int, "str": str, "bool": bool, "float": float, "UUID": UUID}


def _named(kind: type, node: ast.expr) -> list[object]:
    if isinstance(node, ast.BinOp):
        return [*_named(kind, node.left), *_named(kind, node.right)]
    if isinstance(node, ast.Constant) and node.value is None:
        return [type(None)]
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        inner = node.slice
        if node.value.id == "Optional":
            return [*_named(kind, inner), type(None)]
        if node.value.id == "Literal":
            members = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            # A literal that is known only here has no form that a type checker could follow.
            literal: Any = typing.Literal
            return [literal[ast.literal_eval(member)] for member in members]
    if isinstance(node, ast.Name):
        found = _KNOWN.get(node.id) or getattr(sys.modules.get(kind.__module__), node.id, None)
        if found is not None:
            return [found]
    return [object]


def _reader(atom: object) -> Callable[[str], Any] | None:
    """What reads a text as one type; raises ValueError if it is none."""
    if typing.get_origin(atom) is typing.Literal:
        (value,) = typing.get_args(atom)
        return lambda text: _one_of({str(value): value}, text)
    if isinstance(atom, type) and issubclass(atom, enum.Enum):
        members = {member.name.lower(): member for member in atom}
        return lambda text: _one_of(members, text.lower())
    readers: dict[object, Callable[[str], Any]] = {
        int: _whole,
        float: float,
        str: str,
        bool: _truth,
        UUID: UUID,
    }
    return readers.get(atom)


def _one_of(members: dict[str, Any], text: str) -> Any:  # noqa: ANN401 - one of the members
    if text not in members:
        raise ValueError(text)
    return members[text]


def _whole(text: str) -> int:
    if text.startswith("-"):
        return -parse_size(text[1:])
    return parse_size(text)


def _truth(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(text)


def _word(atom: object) -> str:
    if atom is type(None):
        return "none"
    if typing.get_origin(atom) is typing.Literal:
        return str(typing.get_args(atom)[0])
    if isinstance(atom, type) and issubclass(atom, enum.Enum):
        return "|".join(member.name.lower() for member in atom)
    words: dict[object, str] = {
        int: "NUMBER",
        float: "NUMBER",
        str: "TEXT",
        bool: "yes|no",
        UUID: "UUID",
    }
    return words.get(atom, "?")
