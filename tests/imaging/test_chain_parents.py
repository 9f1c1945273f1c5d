"""Parents that were moved, renamed, exchanged or lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from sources import BytesReader
from vsssnap import check_save, open_image, save_image, verify_image
from vsssnap.errors import ImageNotFoundError, ParentMismatchError

MIB = 1 << 20
CONTENT = [b"first" * 40_000, b"second" * 33_000, b"third" * 41_000]
SUFFIXES = ["vsnap", "qcow2", "vhd", "vhdx"]


def disk(upto: int) -> bytes:
    """Three stretches, of which as many as asked for are written."""
    data = bytearray(4 * MIB)
    for number, content in enumerate(CONTENT[:upto]):
        data[number * MIB : number * MIB + len(content)] = content
    return bytes(data)


@pytest.fixture(params=SUFFIXES)
def chain(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """``a``, its child ``b`` and the child of that, ``c``; the suffix."""
    monkeypatch.chdir(tmp_path)
    suffix = str(request.param)
    save_image(BytesReader(disk(1)), f"a.{suffix}")
    for number, (parent, name) in enumerate((("a", "b"), ("b", "c")), 2):
        with open_image(f"{parent}.{suffix}") as opened:
            save_image(BytesReader(disk(number)), f"{name}.{suffix}", parent=opened)
    return suffix


def test_renamed_parents_are_found_among_the_named_files(chain: str) -> None:
    Path(f"a.{chain}").rename("one")
    Path(f"b.{chain}").rename("two")
    for named in (["one", "two"], ["two", "one"]):
        with open_image(f"c.{chain}", parent=named) as image:
            assert image.readall() == disk(3)
    assert verify_image(f"c.{chain}", parent=["one", "two"]).ok


def test_a_single_renamed_parent_may_be_given_by_itself(chain: str) -> None:
    Path(f"a.{chain}").rename("one")
    with open_image(f"c.{chain}", parent="one") as image:
        assert image.readall() == disk(3)


def test_moved_parents_are_found_in_a_folder(chain: str) -> None:
    Path("old").mkdir()
    for name in ("a", "b"):
        Path(f"{name}.{chain}").rename(f"old/{name}.{chain}")
    with open_image(f"c.{chain}", parent=Path("old")) as image:
        assert image.readall() == disk(3)


def test_an_image_in_the_parents_place_gives_way_to_the_named_one(chain: str) -> None:
    Path(f"b.{chain}").rename("right")
    with open_image(f"a.{chain}") as parent:
        save_image(BytesReader(disk(3)), f"b.{chain}", parent=parent)
    with pytest.raises(ParentMismatchError, match="name it with parent="), open_image(f"c.{chain}") as image:
        image.readall()
    with open_image(f"c.{chain}", parent="right") as image:
        assert image.readall() == disk(3)


def test_a_wrong_parent_is_no_damage_but_one_error(chain: str) -> None:
    Path(f"b.{chain}").unlink()
    with open_image(f"a.{chain}") as parent:
        save_image(BytesReader(disk(3)), f"b.{chain}", parent=parent)
    with pytest.raises(ParentMismatchError, match="name it with parent="):
        verify_image(f"c.{chain}")


def test_a_missing_parent_is_no_damage_but_one_error(chain: str) -> None:
    Path(f"b.{chain}").unlink()
    with pytest.raises(ImageNotFoundError, match="name it with parent="):
        verify_image(f"c.{chain}")
    with (
        pytest.raises(ImageNotFoundError, match=rf"looked for .*b\.{chain}.*not .*a\.{chain}"),
        open_image(f"c.{chain}", parent=f"a.{chain}") as image,
    ):
        image.readall()


def test_a_named_parent_must_be_there(chain: str) -> None:
    with pytest.raises(ImageNotFoundError, match="there is no parent nowhere"):
        open_image(f"c.{chain}", parent="nowhere")


def test_a_parent_that_lacks_its_own_gets_no_child(chain: str) -> None:
    """Nobody could read it; that is to be known before anything is stopped for a snapshot."""
    Path("old").mkdir()
    Path(f"a.{chain}").rename(f"old/a.{chain}")
    with (
        pytest.raises(ImageNotFoundError, match=rf"^b\.{chain}: its parent is not there .*a\.{chain}"),
        open_image(f"b.{chain}") as parent,
    ):
        check_save(f"d.{chain}", 4 * MIB, parent=parent)
    with (
        pytest.raises(ImageNotFoundError, match=rf"b\.{chain}('s|: its) parent is not there .*a\.{chain}"),
        open_image(f"c.{chain}") as parent,
    ):
        save_image(BytesReader(disk(3)), f"d.{chain}", parent=parent)
    save_image(BytesReader(disk(3)), f"a.{chain}")  # another one in its place
    with pytest.raises(ParentMismatchError), open_image(f"c.{chain}") as parent:
        check_save(f"d.{chain}", 4 * MIB, parent=parent)
    with open_image(f"c.{chain}", parent="old") as parent:
        check_save(f"d.{chain}", 4 * MIB, parent=parent)
        save_image(BytesReader(disk(3)), f"d.{chain}", parent=parent)
    assert not list(Path().glob("*.partial"))
