"""Fixed-layout binary records whose size is asserted when their class is made.

A record is one class, one field a line, in the order of the specification::

    class Header(Record, size=16, byteorder="<"):
        magic: Bytes8
        version: U32
        flags: U32

Tables (BAT, L1, refcounts) are never records: they are bounded by the file's size first
and then read with `array` or `memoryview.cast`.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Annotated, ClassVar, Literal, Self, dataclass_transform, get_args, get_type_hints

from vsssnap.errors import CorruptImageError

U8 = Annotated[int, "B"]
U16 = Annotated[int, "H"]
U32 = Annotated[int, "I"]
U64 = Annotated[int, "Q"]
Bytes8 = Annotated[bytes, "8s"]
Bytes16 = Annotated[bytes, "16s"]
Bytes32 = Annotated[bytes, "32s"]


@dataclass_transform(frozen_default=True)
class Record:
    """Base of all records; subclasses are frozen dataclasses.

    `dataclasses` would compile half a dozen functions for each class, a third of a
    millisecond; the few that all records share are here.
    """

    SIZE: ClassVar[int]
    OFFSETS: ClassVar[dict[str, int]]
    _struct: ClassVar[struct.Struct]
    _widths: ClassVar[dict[str, int]]  # bytes of the fields that are bytes

    def __init_subclass__(cls, *, size: int, byteorder: Literal["<", ">"]) -> None:
        """Build the layout from the annotations.

        Raises:
            TypeError: the fields do not add up to ``size``, or one has no format.
        """
        super().__init_subclass__()
        if any("OFFSETS" in vars(base) for base in cls.__mro__[1:]):
            raise TypeError(f"{cls.__name__} extends a record; its layout would not be in one place")
        formats: list[str] = []
        offsets: dict[str, int] = {}
        hints = get_type_hints(cls, include_extras=True)
        for name in cls.__annotations__:
            args = get_args(hints[name])
            if len(args) != 2 or not isinstance(args[1], str):
                raise TypeError(f"{cls.__name__}.{name} has no format")
            offsets[name] = struct.calcsize(byteorder + "".join(formats))
            formats.append(args[1])
        layout = struct.Struct(byteorder + "".join(formats))
        if layout.size != size:
            raise TypeError(f"{cls.__name__} is {layout.size} bytes, the specification says {size}")
        cls.SIZE = size
        cls.OFFSETS = offsets
        cls._struct = layout
        cls._widths = {
            name: struct.calcsize(code)
            for name, code in zip(offsets, formats, strict=True)
            if code.endswith("s")
        }
        dataclasses.dataclass(init=False, repr=False, eq=False)(cls)

    def __init__(self, *values: object, **named: object) -> None:
        """All fields, in their order or by name.

        Raises:
            TypeError: one is lacking, or there is no such field.
        """
        if named:
            rest = list(self.OFFSETS)[len(values) :]
            values = (*values, *(named.pop(name) for name in rest if name in named))
        if named or len(values) != len(self.OFFSETS):
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(self.OFFSETS)}")
        self.__dict__.update(zip(self.OFFSETS, values, strict=True))

    def __setattr__(self, name: str, value: object) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({fields})"

    def pack(self) -> bytes:
        """The record's bytes.

        Raises:
            struct.error: a field does not fit; a bug in the caller, never bad input.
        """
        fields = self.__dict__  # in the order of the layout: `__init__` fills it
        for name, width in self._widths.items():
            # `struct` cuts long bytes and pads short ones without a word.
            if len(fields[name]) != width:
                raise struct.error(f"{type(self).__name__}.{name} is {len(fields[name])} bytes, not {width}")
        return self._struct.pack(*fields.values())

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview, offset: int = 0) -> Self:
        """Read a record.

        Args:
            data: Where it lies.
            offset: Its first byte in ``data``.

        Raises:
            CorruptImageError: ``data`` ends before the record does.
        """
        if offset < 0 or len(data) - offset < cls.SIZE:
            raise CorruptImageError(
                f"{cls.__name__} is cut short: {max(0, len(data) - offset)} of {cls.SIZE} bytes are there",
                structure=cls.__name__,
                offset=offset,
            )
        found = object.__new__(cls)
        found.__dict__.update(zip(cls.OFFSETS, cls._struct.unpack_from(data, offset), strict=True))
        return found
