"""KEY=VALUE becomes the options of a format or a provider."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields
from typing import Literal, Optional
from uuid import UUID

import pytest

from vsssnap.cli.options import build, description
from vsssnap.errors import UsageError
from vsssnap.formats import available, by_name


class Mode(enum.Enum):
    FAST = 1
    SMALL = 2


@dataclass(frozen=True)
class Options:
    """Of every kind that is understood."""

    level: int = 1
    ratio: float = 0.5
    name: str = "x"
    sparse: bool = True
    mode: Mode = Mode.FAST
    digest: Literal["blake3", "sha256"] | None = None
    image_id: UUID | None = None
    chunk: Optional[int] = None  # noqa: UP045  # the older way is understood as well
    callback: object = None
    made: int = field(default=0, init=False)


@pytest.mark.parametrize(
    ("pair", "name", "value"),
    [
        ("level=9", "level", 9),
        ("level=-5", "level", -5),
        ("level=64K", "level", 65_536),
        ("ratio=0.25", "ratio", 0.25),
        ("name=a=b", "name", "a=b"),
        ("sparse=no", "sparse", False),
        ("sparse=YES", "sparse", True),
        ("sparse=0", "sparse", False),
        ("mode=small", "mode", Mode.SMALL),
        ("mode=SMALL", "mode", Mode.SMALL),
        ("digest=sha256", "digest", "sha256"),
        ("digest=none", "digest", None),
        ("image-id=00000000-0000-0000-0000-000000000001", "image_id", UUID(int=1)),
        ("chunk=4096", "chunk", 4096),
        ("chunk=None", "chunk", None),
        (" level =3", "level", 3),
    ],
)
def test_value_has_the_type_of_its_field(pair: str, name: str, value: object) -> None:
    found = getattr(build(Options, [pair], "format 'x'"), name)
    assert (found, type(found)) == (value, type(value))


def test_nothing_given_is_nothing() -> None:
    assert build(Options, [], "format 'x'") is None


def test_last_one_wins() -> None:
    assert build(Options, ["level=1", "level=2"], "format 'x'") == Options(level=2)


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("colour=red", "format 'x' has no option 'colour': known: level=NUMBER"),
        ("level", "option 'level' is no KEY=VALUE"),
        ("level=high", "option level of format 'x' is 'high': it takes NUMBER"),
        ("sparse=maybe", "option sparse of format 'x' is 'maybe': it takes yes"),
        ("mode=slow", "it takes fast|small"),
        ("digest=md5", "it takes blake3 or sha256 or none"),
        ("image_id=1", "it takes UUID or none"),
        ("callback=print", "cannot be given on the command line"),
        ("made=1", "has no option 'made'"),
    ],
)
def test_what_is_wrong_says_what_is_known(pair: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(Options, [pair], "format 'x'")
    assert said in str(caught.value)


def test_refusal_by_the_options_themselves_passes() -> None:
    @dataclass(frozen=True)
    class Strict:
        level: int = 1

        def __post_init__(self) -> None:
            raise TypeError("not this one")

    with pytest.raises(UsageError, match="provider 'y': not this one"):
        build(Strict, ["level=1"], "provider 'y'")


def test_options_are_listed_with_their_defaults() -> None:
    assert description(Options) == [
        "level=NUMBER (default 1)",
        "ratio=NUMBER (default 0.5)",
        "name=TEXT (default x)",
        "sparse=yes|no (default yes)",
        "mode=fast|small (default fast)",
        "digest=blake3|sha256 (default none)",
        "image_id=UUID (default none)",
        "chunk=NUMBER (default none)",
    ]


@pytest.mark.parametrize("name", [name for name, problem in available().items() if not problem])
def test_options_of_every_format_can_be_given(name: str) -> None:
    kind = by_name(name).options_type
    listed = {text.partition("=")[0] for text in description(kind)}
    # A time of creation is for files that come out the same each time, from a program.
    assert {item.name for item in fields(kind)} - listed <= {"created"}
