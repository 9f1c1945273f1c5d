"""The text in which LVM2 describes a volume group: sections, and values of three kinds.

::

    vg {
        seqno = 3
        status = ["RESIZEABLE", "READ", "WRITE"]
        physical_volumes { pv0 { pe_start = 2048 } }
    }

Source: "LVM format specification" of the libvslvm project, section "Metadata"; lvm.conf(5), "SYNTAX".
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from vsssnap.errors import CorruptImageError

Value: TypeAlias = "int | float | str | list[Value] | Section"
Section: TypeAlias = "dict[str, Value]"

_DEEPEST: Final = 8  # groups have sections in sections in sections, and no more
_TOKEN: Final = re.compile(
    r"""
    [\s\0]+ | \#[^\n]*                        # space and comments
    | (?P<string> "(?:[^"\\]|\\.)*+" )         # possessive: no way back is kept for each character
    | (?P<number> -?\d{1,20}(?:\.\d{1,20})? (?![\w.+-]) )
    | (?P<name> [A-Za-z0-9_.+-]+ )
    | (?P<mark> [{}\[\]=,] )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


def parse(text: str) -> Section:
    """The sections and values of a text.

    Raises:
        CorruptImageError: it is no such text; sections are nested deeper than LVM2 does, or a name
            comes twice.
    """
    return _Parser(text).parsed()


class _Parser:
    """One pass over the text; what is nested is on a list, not on Python's stack."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0  # where the next token begins
        self._kind: str | None = None  # of the token looked at; None at the end
        self._token = ""
        self._next()

    def _next(self) -> None:
        while self._at < len(self._text):
            found = _TOKEN.match(self._text, self._at)
            if found is None:
                raise self._wrong("what is no word of it")
            self._at = found.end()
            if found.lastgroup is not None:
                self._kind, self._token = found.lastgroup, found.group()
                return
        self._kind, self._token = None, "the end"

    def _wrong(self, what: str) -> CorruptImageError:
        return CorruptImageError(
            f"the description of the volume group has {what} before character {self._at}",
            structure="LVM metadata",
            offset=self._at,
            hint="vgcfgrestore(8) writes an older description",
        )

    def parsed(self) -> Section:
        top: Section = {}
        open_sections = [top]
        while self._kind is not None:
            if self._took("}"):
                open_sections.pop()
                if not open_sections:
                    raise self._wrong("a } too many")
                continue
            if self._kind not in ("name", "number"):  # a volume may be called 7
                raise self._wrong(f"{self._token[:40]} where a name should be")
            name = self._token
            self._next()
            if name in open_sections[-1]:
                raise self._wrong(f"{name[:40]} twice")
            if self._took("="):
                open_sections[-1][name] = self._value()
            elif self._took("{"):
                if len(open_sections) > _DEEPEST:
                    raise self._wrong("too many sections in one another")
                inner: Section = {}
                open_sections[-1][name] = inner
                open_sections.append(inner)
            else:
                raise self._wrong(f"{self._token[:40]} behind {name[:40]}")
        if len(open_sections) > 1:
            raise self._wrong("a section without an end")
        return top

    def _took(self, mark: str) -> bool:
        if self._kind != "mark" or self._token != mark:
            return False
        self._next()
        return True

    def _value(self) -> Value:
        if not self._took("["):
            return self._plain()
        items: list[Value] = []
        while not self._took("]"):
            items.append(self._plain())
            if not self._took(","):
                if self._took("]"):
                    break
                raise self._wrong(f"{self._token[:40]} in a list")
        return items

    def _plain(self) -> Value:
        kind, token = self._kind, self._token
        if kind == "string":
            self._next()
            return _ESCAPED.sub(r"\1", token[1:-1])
        if kind == "number":
            self._next()
            return float(token) if "." in token else int(token)
        raise self._wrong(f"{token[:40]} where a value should be")
