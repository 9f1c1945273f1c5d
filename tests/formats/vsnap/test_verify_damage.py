"""Every damage is noticed, and none gives a wrong byte.

The damage is done by a process of its own (`tests/support/vsnap_damage.py`), whose memory may grow by
64 MiB and which gives each damaged image 5 seconds.  What it reports as wrong is: a damage that
`verify_image` at its default depth does not notice, a wrong byte or state, any exception but
CorruptImageError, too much memory or time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from checkout import TOP

PROGRAM = TOP / "tests" / "support" / "vsnap_damage.py"
PATHS = [str(PROGRAM.parent), str(TOP / "src")]
TIMEOUT = 1500.0

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="limits of a process are set by /proc and setrlimit"
)


def damaged(folder: Path, image: str, way: str, amount: int, mode: str = "strict") -> dict[str, Any]:
    start = f"import sys; sys.path[:0] = {PATHS!r}; import vsnap_damage; vsnap_damage.main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", start, str(folder), image, way, str(amount), mode],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout)
    assert not result["failed"], "\n".join(result["failures"])
    return result


def check(result: dict[str, Any], damages: int) -> None:
    assert result["damages"] == damages
    assert result["noticed"] == damages
    # A reader does not meet every damage: that of one footer, or of a frame that is skipped, it need not.
    assert result["right"] + result["refused"] == damages
    assert result["refused"]


def test_a_flipped_bit_in_any_byte_is_noticed(tmp_path: Path) -> None:
    result = damaged(tmp_path, "full", "fields", 1)
    assert result["damages"] > result["bytes"] - 2 * 4096 + 2 * 360
    check(result, result["damages"])
    assert result["right"]


@pytest.mark.parametrize("image", ["full", "child"])
def test_a_flipped_bit_is_noticed_at_the_deepest_depth_too(image: str, tmp_path: Path) -> None:
    """There each payload is read once, with the chunks or with the frames: none may fall between."""
    result = damaged(tmp_path, image, "fields", 1, "content")
    assert result["damages"] > result["bytes"] - 2 * 4096 + 2 * 360
    assert result["noticed"] == result["damages"]


@pytest.mark.parametrize("image", ["child", "parent"])
def test_a_flipped_bit_anywhere_in_a_chain_is_noticed(image: str, tmp_path: Path) -> None:
    """Every third byte; all of them take minutes and are for the long run."""
    result = damaged(tmp_path, image, "fields", 0)
    assert result["damages"] > (result["bytes"] - 2 * 4096 + 2 * 360) // 3
    check(result, result["damages"])
    assert result["right"]


@pytest.mark.long
@pytest.mark.timeout(1600)
@pytest.mark.parametrize("image", ["full", "child", "parent"])
def test_every_flipped_bit_is_noticed(image: str, tmp_path: Path) -> None:
    result = damaged(tmp_path, image, "flips", 8)
    check(result, 8 * result["bytes"])
    assert result["right"]


@pytest.mark.parametrize("image", ["full", "child"])
def test_every_truncation_is_noticed(image: str, tmp_path: Path) -> None:
    result = damaged(tmp_path, image, "cuts", 1)
    check(result, result["bytes"])
    assert not result["right"]  # whatever is cut off the end, the image is incomplete


@pytest.mark.long
@pytest.mark.timeout(1600)
def test_every_truncation_of_the_parent_is_noticed(tmp_path: Path) -> None:
    result = damaged(tmp_path, "parent", "cuts", 1)
    check(result, result["bytes"])


def test_accidents_are_noticed(tmp_path: Path) -> None:
    check(damaged(tmp_path, "large", "accidents", 1000), 1000)


def test_forged_numbers_raise_only_errors_of_the_library_in_bounded_time(tmp_path: Path) -> None:
    """All checks agree, as in an image that was made to do harm."""
    result = damaged(tmp_path, "child", "forgeries", 0)
    assert result["damages"] > 400


@pytest.mark.long
@pytest.mark.timeout(1600)
@pytest.mark.parametrize("image", ["full", "child", "parent"])
def test_forgeries_raise_only_errors_of_the_library_in_bounded_time(image: str, tmp_path: Path) -> None:
    result = damaged(tmp_path, image, "forgeries", 8)
    assert result["damages"] > 20_000


def recovered(result: dict[str, Any], damages: int) -> None:
    assert result["damages"] == damages
    # "Refused" counts images of which something is unreadable, too.
    assert result["right"] + result["refused"] == damages
    assert result["right"]


def test_accidents_give_no_wrong_byte_in_recover_mode(tmp_path: Path) -> None:
    recovered(damaged(tmp_path, "large", "accidents", 150, "recover"), 150)


@pytest.mark.long
@pytest.mark.timeout(1600)
@pytest.mark.parametrize("image", ["full", "child", "parent"])
@pytest.mark.parametrize("way", ["flips", "cuts"])
def test_no_damage_gives_a_wrong_byte_in_recover_mode(image: str, way: str, tmp_path: Path) -> None:
    result = damaged(tmp_path, image, way, 8 if way == "flips" else 1, "recover")
    recovered(result, result["bytes"] * (8 if way == "flips" else 1))
