"""Which error comes out when no provider can take a snapshot, and what it says."""

from __future__ import annotations

import pickle

import pytest

from vsssnap import Snapshot
from vsssnap.errors import ProviderUnavailableError, SnapshotPermissionError
from vsssnap.providers import Offer, SnapshotRequest
from vsssnap.testing import MemoryProvider, MemoryVolume, installed


class Locked(MemoryProvider):
    """Could, if it might."""

    name = "locked"

    def probe(self, request: SnapshotRequest, /) -> Offer:
        return Offer(None, "the door is locked", denied=True)


class Elsewhere(MemoryProvider):
    """A provider of a system that this is not."""

    name = "elsewhere"
    platforms: tuple[str, ...] = ("amiga",)

    def unusable(self) -> str:
        return "this is no Amiga"


def test_missing_rights_are_an_error_of_rights() -> None:
    with installed(Locked), pytest.raises(SnapshotPermissionError, match="run as an administrator") as caught:
        Snapshot("/no/such/volume").create()
    assert isinstance(caught.value, PermissionError)
    assert caught.value.reasons["locked"] == "the door is locked"
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert (str(again), again.reasons) == (str(caught.value), caught.value.reasons)


def test_the_message_leaves_out_what_is_for_other_volumes_and_systems() -> None:
    with installed(Elsewhere), pytest.raises(ProviderUnavailableError) as caught:
        Snapshot("/no/such/volume").create()
    error = caught.value
    assert {"elsewhere", "cow", "static"} <= set(error.reasons)
    assert {"elsewhere", "cow", "vss"} <= set(error.unrelated)
    lines = [line.split(":")[0].strip() for line in str(error).splitlines()[1:]]
    assert lines == ["reflink", "static"]


def test_reasons_are_all_shown_where_none_is_of_use() -> None:
    error = ProviderUnavailableError("none can", reasons={"a": "no", "b": "never"}, unrelated=["a", "b"])
    assert str(error) == "none can\n  a: no\n  b: never"


def test_a_volume_object_hears_from_its_own_kind() -> None:
    volume = MemoryVolume(b"x" * 512, name="memory")
    with pytest.raises(ProviderUnavailableError) as caught:
        Snapshot(volume, provider="cow").create()
    assert "cow" in str(caught.value)
