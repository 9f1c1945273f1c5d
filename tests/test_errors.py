"""`vsssnap.errors`: the tree, what every class carries, and that nothing is lost on the way."""

from __future__ import annotations

import copy
import errno
import inspect
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest

from vsssnap import errors
from vsssnap.errors import (
    ClosedError,
    ConsistencyError,
    CorruptImageError,
    DeviceReadError,
    ImageNotFoundError,
    ProviderUnavailableError,
    SnapshotBusyError,
    SnapshotPermissionError,
    SnapshotTimeoutError,
    TargetError,
    TargetRefusedError,
    UsageError,
    VssSnapError,
    WriterFailedError,
)

pytestmark = pytest.mark.wheel

CLASSES = [getattr(errors, name) for name in errors.__all__]

# A value for every keyword an error class takes, none of them its default.
VALUES: dict[str, Any] = {
    "call": "ioctl(FICLONE)",
    "code": 0x8004_2314,
    "hint": "give the shadow storage more room",
    "reasons": {"reflink": "ext4 cannot clone", "lvm": "no volume group"},
    "unrelated": ("lvm",),
    "wanted": "APPLICATION",
    "offered": "CRASH",
    "writer": "SqlServerWriter",
    "state": "FAILED_AT_FREEZE",
    "offset": 0x1_0000_0000,
    "length": 512,
    "path": "/images/c.vsnap",
    "structure": "footer",
    "feature": "bit 7",
}

DRAWN = re.compile(r"^    ([│├└─ ]*)([A-Z]\w*Error)(?: \((\w+)\))?")


def drawing() -> dict[str, tuple[str, str]]:
    """The tree of the module's docstring: name -> (parent, built-in base or "")."""
    found: dict[str, tuple[str, str]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = DRAWN.match(line)
        if match is None:
            continue
        depth = len(match[1]) // 4
        del above[depth:]
        found[match[2]] = (above[-1] if above else "", match[3] or "")
        above.append(match[2])
    return found


def keywords(cls: type[VssSnapError]) -> dict[str, Any]:
    taken = list(inspect.signature(cls).parameters)[1:]
    return {name: VALUES[name] for name in taken}


def full(cls: type[VssSnapError]) -> VssSnapError:
    """An error with every field set, an attribute of a caller's own, and a note."""
    error = cls("the volume /dev/vg0/data cannot be frozen", **keywords(cls))
    error.ticket = 4711  # type: ignore[attr-defined]  # a caller's own attribute is the point
    error.add_note("while cleaning up: the loop device /dev/loop3 is still in use")
    return error


def state(error: BaseException) -> dict[str, Any]:
    return {"type": type(error), "text": str(error), "args": error.args, **vars(error)}


def test_drawing_names_exactly_the_classes() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert set(drawing()) == defined == set(errors.__all__)


def test_drawing_shows_the_bases() -> None:
    bases = {}
    for cls in CLASSES:
        own = [base.__name__ for base in cls.__bases__ if base in CLASSES]
        builtin = [base.__name__ for base in cls.__bases__ if base not in CLASSES and base is not Exception]
        bases[cls.__name__] = (own[0] if own else "", builtin[0] if builtin else "")
    assert drawing() == bases


def test_drawing_has_the_documented_depth() -> None:
    # Guards the reader above: a drawing it cannot read would otherwise compare equal to little.
    assert drawing()["TargetRefusedError"] == ("TargetError", "")
    assert drawing()["ImageNotFoundError"] == ("ImageError", "FileNotFoundError")


@pytest.mark.parametrize("cls", CLASSES)
def test_class_has_a_docstring_of_its_own(cls: type[VssSnapError]) -> None:
    assert "__doc__" in vars(cls)
    assert (cls.__doc__ or "").strip()


@pytest.mark.parametrize("cls", CLASSES)
def test_constructor_sets_every_field(cls: type[VssSnapError]) -> None:
    error, values = cls("it failed", **keywords(cls)), keywords(cls)
    assert {name: getattr(error, name) for name in values} == values


@pytest.mark.parametrize("cls", CLASSES)
def test_fields_are_the_constructor_keywords(cls: type[VssSnapError]) -> None:
    # What `_fields` lacks would be lost in a pickle when a class takes it by another name.
    assert set(cls._fields) == set(keywords(cls))


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_keeps_everything(cls: type[VssSnapError], protocol: int) -> None:
    error = full(cls)
    assert state(pickle.loads(pickle.dumps(error, protocol))) == state(error)  # noqa: S301 - our own bytes


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copy_keeps_everything(
    cls: type[VssSnapError], duplicate: Callable[[VssSnapError], VssSnapError]
) -> None:
    error = full(cls)
    twin = duplicate(error)
    assert twin is not error
    assert state(twin) == state(error)


def test_subclass_of_a_guest_survives_pickle() -> None:
    error = GuestError("no such pool", call="zpool", hint="import it")
    assert state(pickle.loads(pickle.dumps(error))) == state(error)  # noqa: S301 - our own bytes


class GuestError(SnapshotBusyError):
    """As a driver outside the package may define one."""


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (UsageError, ValueError),
        (ClosedError, ValueError),
        (SnapshotPermissionError, PermissionError),
        (SnapshotTimeoutError, TimeoutError),
        (DeviceReadError, OSError),
        (TargetError, OSError),
        (ImageNotFoundError, FileNotFoundError),
    ],
)
def test_builtin_handler_catches_it(cls: type[VssSnapError], builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match="it failed"):
        raise cls("it failed")


def test_only_a_busy_snapshot_is_retryable() -> None:
    assert [cls.__name__ for cls in CLASSES if cls("it failed").retryable] == ["SnapshotBusyError"]


def test_text_ends_with_the_hint() -> None:
    assert (
        str(UsageError("offset -1 is negative", hint="pass 0 or more"))
        == "offset -1 is negative: pass 0 or more"
    )


def test_text_without_call_or_hint_is_the_message() -> None:
    assert str(UsageError("offset -1 is negative")) == "offset -1 is negative"


def test_errno_is_shown_in_decimal() -> None:
    error = DeviceReadError("sda failed", call="pread", code=errno.EIO)
    assert str(error) == "sda failed [pread error 5]"


def test_hresult_is_shown_in_hexadecimal() -> None:
    error = SnapshotBusyError("C: is busy", call="DoSnapshotSet", code=0x8004_2316)
    assert str(error) == "C: is busy [DoSnapshotSet error 0x80042316]"


def test_code_without_a_call_is_shown() -> None:
    assert str(TargetError("the target is full", code=errno.ENOSPC)) == "the target is full [error 28]"


@pytest.mark.parametrize("cls", [ProviderUnavailableError, ConsistencyError])
def test_text_lists_every_provider_with_its_reason(
    cls: type[ProviderUnavailableError | ConsistencyError],
) -> None:
    error = cls("no provider", reasons={"lvm": "not a logical volume", "reflink": "ext4 cannot clone"})
    assert str(error).splitlines() == [
        "no provider",
        "  lvm: not a logical volume",
        "  reflink: ext4 cannot clone",
    ]


def test_reasons_are_the_errors_own() -> None:
    reasons = {"lvm": "not a logical volume"}
    error = ProviderUnavailableError("no provider", reasons=reasons)
    reasons.clear()
    assert error.reasons == {"lvm": "not a logical volume"}


def test_writer_failure_names_writer_and_state() -> None:
    error = WriterFailedError("a writer failed", writer="NTDS", state="FAILED_AT_THAW")
    assert (error.writer, error.state) == ("NTDS", "FAILED_AT_THAW")


def test_refused_target_is_a_target_error() -> None:
    with pytest.raises(TargetError, match="is mounted") as caught:
        raise TargetRefusedError("/dev/sdb1 is mounted on /srv", path="/dev/sdb1")
    assert caught.value.path == "/dev/sdb1"


def test_at_completes_the_place_of_damage() -> None:
    error = CorruptImageError("bad checksum", structure="footer", offset=16).at("c.vsnap", 4096)
    assert (error.path, error.offset) == ("c.vsnap", 4112)


def test_at_keeps_a_known_path() -> None:
    assert CorruptImageError("bad checksum", path="parent.vsnap").at("c.vsnap").path == "parent.vsnap"
