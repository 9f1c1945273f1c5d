"""Drivers that a registry must refuse; no entry point of this distribution names them."""

from __future__ import annotations

from typing import ClassVar

from vsssnap.formats import ImageFormat, Probe
from vsssnap_guest.box import BoxFormat
from vsssnap_guest.copier import CopierProvider


class OtherApiFormat(BoxFormat):
    """Made for another version of the contract."""

    api = 99
    name = "otherapi"


class OtherApiProvider(CopierProvider):
    """Made for another version of the contract."""

    api = 99
    name = "otherapi"


class SecondRawFormat(BoxFormat):
    """Takes the name of a built-in."""

    name = "raw"


class MisnamedFormat(BoxFormat):
    """Calls itself otherwise than its entry point does."""

    name = "something-else"


class HalfFormat(ImageFormat):
    """Lacks what a format must do."""

    name = "half"

    def probe(self, seen: Probe, /) -> int:
        return 0


class ThrowingFormat(BoxFormat):
    """Raises whenever it sees a file."""

    name = "throwing"
    suffixes: ClassVar[tuple[str, ...]] = (".throwing",)

    def probe(self, seen: Probe, /) -> int:
        raise ZeroDivisionError("a bug of the guest")


class NoFormat:
    """Is no format at all."""

    api = 1
    name = "noformat"
