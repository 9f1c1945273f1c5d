"""The descriptor of a VMDK: text that says what a disk consists of.

Source: "Virtual Disk Format 5.0", section "The Descriptor File".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vsssnap.errors import CorruptImageError, UnsupportedFeatureError
from vsssnap.formats.vmdk.structs import DESCRIPTOR_MARK, NO_PARENT, SECTOR

if TYPE_CHECKING:
    from collections.abc import Mapping

_LINE: Final = re.compile(
    r"(RW|RDONLY|NOACCESS)[ \t]+(\d{1,19})[ \t]+(\w{1,32})"
    r'(?:[ \t]+"([^"]{1,4096})"(?:[ \t]+(\d{1,19}))?)?(.{0,4096})',
    re.ASCII,
)
_VALUE: Final = re.compile(r"([\w.:-]{1,256})[ \t]*=[ \t]*(.*)", re.ASCII)
_ENCODINGS: Final = re.compile(
    r"utf-8|us-ascii|windows-125\d|iso-8859-\d{1,2}|gbk|gb2312|gb18030|big5|shift_jis|euc-jp|euc-kr"
)
_MOST_EXTENTS: Final = 65536
_MOST_SECTORS: Final = (1 << 63) // SECTOR - 1


@dataclass(frozen=True, slots=True)
class ExtentLine:
    """One part of a disk.

    Attributes:
        access: RW, RDONLY or NOACCESS.
        sectors: Its length in the volume.
        kind: FLAT, SPARSE, ZERO, VMFS, VMFSSPARSE, SESPARSE and others.
        name: Of its file; "" for ZERO.
        offset: Where it begins in its file, in sectors; only with FLAT and VMFS.
    """

    access: str
    sectors: int
    kind: str
    name: str = ""
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a descriptor says.

    Attributes:
        cid: Content id, which changes with the content; a child names its parent's.
        parent_cid: That of the parent, NO_PARENT if there is none.
        kind: ``createType``.
        hint: Where the parent was when the child was made.
        extents: The parts of the disk, in order.
        database: The ``ddb.`` values: geometry, adapter, versions.
    """

    cid: int
    parent_cid: int
    kind: str
    hint: str
    extents: tuple[ExtentLine, ...]
    database: Mapping[str, str] = field(default_factory=dict)

    @property
    def sectors(self) -> int:
        """Of the volume."""
        return sum(line.sectors for line in self.extents)


def parse(data: bytes, path: str, offset: int) -> Descriptor:
    """Read a descriptor.

    Args:
        data: Its bytes, at most MAX_DESCRIPTOR; what follows the first NUL is padding.
        path: Its file, for messages.
        offset: Where it begins there.

    Raises:
        CorruptImageError: it is none, or breaks the rules.
        UnsupportedFeatureError: its version is not known.
    """
    text = _decoded(data.partition(b"\0")[0])
    if not text.lstrip().lower().startswith(DESCRIPTOR_MARK.decode("ascii").lower()):
        raise _broken(path, offset, f"it does not begin with {DESCRIPTOR_MARK.decode('ascii')!r}")
    values: dict[str, str] = {}
    database: dict[str, str] = {}
    extents: list[ExtentLine] = []
    sectors = 0
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if found := _LINE.fullmatch(line):
            extents.append(_extent(found, path, offset, number))
            sectors += extents[-1].sectors
            if len(extents) > _MOST_EXTENTS or sectors > _MOST_SECTORS:
                raise _broken(path, offset, f"{len(extents)} extents of {sectors} sectors are too much")
        elif found := _VALUE.fullmatch(line):
            name, value = found[1].lower(), _unquoted(found[2])
            if name in ("cid", "parentcid", "createtype", "version", "parentfilenamehint") and name in values:
                raise _broken(path, offset, f"line {number} tells {found[1]} a second time")
            values[name] = value
            if name.startswith("ddb."):
                database[found[1]] = value
        else:
            raise _broken(path, offset, f"line {number} is no value and no extent: {line[:60]!r}")
    if values.get("version") not in ("1", "2", "3", "4"):
        raise UnsupportedFeatureError(
            f"{path}: descriptor version {values.get('version', '(none)')[:20]}",
            path=path,
            feature=f"descriptor version {values.get('version', '')[:20]}",
        )
    if not extents or not sectors:
        raise _broken(path, offset, "it has no extents")
    return Descriptor(
        cid=_hex(values, "cid", path, offset),
        parent_cid=_hex(values, "parentcid", path, offset),
        kind=values.get("createtype", ""),
        hint=values.get("parentfilenamehint", ""),
        extents=tuple(extents),
        database=database,
    )


def _decoded(data: bytes) -> str:
    named = re.search(rb'^[ \t]*encoding[ \t]*=[ \t]*"?([\w-]{1,20})', data, re.IGNORECASE | re.MULTILINE)
    name = named[1].decode("ascii", "replace").lower() if named else "utf-8"
    if _ENCODINGS.fullmatch(name):
        try:
            return data.decode(name)
        except (UnicodeDecodeError, LookupError):
            pass  # many a descriptor says UTF-8 and is not
    return data.decode("utf-8", "surrogateescape")


def _unquoted(value: str) -> str:
    value = value.strip()
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] == '"' else value


def _hex(values: Mapping[str, str], name: str, path: str, offset: int) -> int:
    value = values.get(name, "ffffffff" if name == "parentcid" else "")
    if not re.fullmatch(r"[0-9a-fA-F]{1,8}", value, re.ASCII):
        raise _broken(path, offset, f"{name} is {value[:20]!r}, no number of 32 bits")
    return int(value, 16)


def _extent(found: re.Match[str], path: str, offset: int, number: int) -> ExtentLine:
    access, sectors, kind, name, start, rest = found.groups()
    line = ExtentLine(access, int(sectors), kind.upper(), name or "", int(start or 0))
    if not line.sectors or (line.kind == "ZERO") == bool(name):
        raise _broken(path, offset, f"line {number} is no extent: {found[0][:60]!r}")
    if rest.strip() and line.kind in ("ZERO", "SPARSE"):
        raise _broken(path, offset, f"line {number} goes on behind its end: {rest.strip()[:60]!r}")
    return line


def _broken(path: str, offset: int, message: str) -> CorruptImageError:
    return CorruptImageError(
        f"{path}: descriptor: {message}", path=path, structure="descriptor", offset=offset
    )


def make(kind: str, cid: int, name: str, size: int, adapter: str) -> bytes:
    """The descriptor of a disk that is one sparse extent, with LF line ends.

    Args:
        kind: ``createType``.
        cid: Content id.
        name: Of the file it will lie in.
        size: Bytes of the volume.
        adapter: ``ddb.adapterType``.
    """
    # A name that a line cannot hold is replaced: readers take the file that the descriptor lies in.
    plain = name if name.isprintable() and '"' not in name and len(name) <= 255 else "disk.vmdk"
    heads, sectors = (16, 63) if adapter == "ide" or size < 1 << 30 else (255, 63)
    cylinders = size // (heads * sectors * SECTOR)
    text = f"""\
{DESCRIPTOR_MARK.decode("ascii")}
version=1
encoding="UTF-8"
CID={cid:08x}
parentCID={NO_PARENT:08x}
createType="{kind}"

# Extent description
RW {size // SECTOR} SPARSE "{plain}"

# The Disk Data Base
#DDB

ddb.virtualHWVersion = "4"
ddb.geometry.cylinders = "{min(cylinders, 16383) if adapter == "ide" else cylinders}"
ddb.geometry.heads = "{heads}"
ddb.geometry.sectors = "{sectors}"
ddb.adapterType = "{adapter}"
"""
    return text.encode("utf-8", "replace")
