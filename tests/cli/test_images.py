"""``info`` and ``verify`` on a chain of golden images."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vsnap_golden import FOLDER, NAMES


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    for name in NAMES:
        shutil.copy(FOLDER / f"{name}.vsnap", tmp_path)
    return tmp_path


def vsssnap(*arguments: str, folder: Path, status: int = 0) -> str:
    command = [sys.executable, "-m", "vsssnap", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_a_damaged_image_is_compared_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    data = bytes(range(1, 256)) * 4000
    (tmp_path / "plain.raw").write_bytes(data)
    vsssnap("convert", "plain.raw", "a.raw", folder=tmp_path)
    with (tmp_path / "a.raw").open("r+b") as file:
        file.truncate(600_000)
    said = vsssnap("compare", "a.raw", "plain.raw", "--recover", folder=tmp_path, status=1)
    assert "a.raw and plain.raw hold the same, as far as they can be read" in said
    kept = 2 * 262_144  # whole blocks of the side-car
    assert f"{len(data) - kept} bytes cannot be read on one side" in said
    assert f"{len(data) - kept} bytes at {kept} unreadable" in said


def test_a_file_that_is_called_like_the_standard_output_is_not_restored_to(chain: Path) -> None:
    vsssnap("restore", f"{NAMES[0]}.vsnap", "-", folder=chain, status=2)
    assert not (chain / "-").exists()
    (chain / "plain.raw").write_bytes(b"volume" * 1000)
    vsssnap("restore", "plain.raw", "./-", folder=chain)
    assert (chain / "-").read_bytes() == b"volume" * 1000


def facts(text: str) -> list[tuple[str, str]]:
    """The lines as name and value; names are followed by two spaces at least."""
    pairs = [line.strip().partition("  ") for line in text.splitlines()[1:]]
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def test_info_shows_geometry_states_ratio_identity_parents_and_features(chain: Path) -> None:
    info = json.loads((FOLDER / "golden.json").read_text())["grandchild"]["info"]
    found = facts(vsssnap("info", "grandchild.vsnap", folder=chain))
    told = dict(found)
    for name in ("identity", "image id", "chunk size", "cell size", "segment size", "digest", "ratio"):
        assert told[name] == str(info[name.replace(" ", "_")]), name
    assert told["size"] == f"321 KiB ({info['size']} bytes)"
    assert (told["complete"], told["features"], told["format version"]) == ("yes", "chain", "0")
    for kind, count in info["states"].items():
        # "excluded" is also what the metadata calls the patterns that were left out; the last one counts.
        assert kind == "excluded" or abs(float(told[kind].split()[0]) - count / 1024) < 0.6
    assert ("excluded", "8.76 KiB") in found
    parents = [value for name, value in found if name == "parents"]
    assert len(parents) == 2
    for line, parent in zip(parents, info["parents"], strict=True):
        assert parent["name"] in line
        assert parent["identity"] in line
    assert len([name for name, _ in found if name == "size"]) == 1


def test_info_as_json_has_the_facts_of_the_format(chain: Path) -> None:
    info = json.loads((FOLDER / "golden.json").read_text())["child"]["info"]
    told = json.loads(vsssnap("info", "child.vsnap", "--json", folder=chain))
    assert told["details"] == info
    assert told["depths"] == ["structure", "stored", "content"]


def test_info_of_a_broken_image_needs_recover(chain: Path) -> None:
    file = chain / "full.vsnap"
    file.write_bytes(file.read_bytes()[:-5000])
    vsssnap("info", "full.vsnap", folder=chain, status=21)
    told = dict(facts(vsssnap("info", "full.vsnap", "--recover", folder=chain)))
    assert told["complete"] == "no"
    assert "identity" not in told
    assert "bytes 17070 to 20262" in told["damage"]


@pytest.mark.parametrize("depth", ["structure", "stored", "content"])
@pytest.mark.parametrize("name", NAMES)
def test_sound_images_verify_at_every_depth(chain: Path, name: str, depth: str) -> None:
    told = vsssnap("verify", f"{name}.vsnap", "--depth", depth, folder=chain)
    looked = {
        "structure": "its structures were checked",
        "stored": "every stored byte was compared",
        "content": "every block was read and compared",
    }
    assert told.startswith(f"{name}.vsnap: ok (vsnap; {looked[depth]}")


def flip(path: Path, what: bytes) -> None:
    data = bytearray(path.read_bytes())
    assert data.count(what) == 1
    data[data.index(what)] ^= 1
    path.write_bytes(data)


def test_damage_of_the_structure_is_seen_at_every_depth(chain: Path) -> None:
    flip(chain / "full.vsnap", b'"umlaut"')
    for depth in ("structure", "stored", "content"):
        told = vsssnap("verify", "full.vsnap", "--depth", depth, folder=chain, status=1)
        assert "DAMAGED" in told
        assert re.search(r"metadata at \d+: .*the check of the frame does not agree", told)


def test_damage_of_payload_in_an_ancestor_is_seen_from_the_second_depth_on(chain: Path) -> None:
    from vsnap_images import noise

    flip(chain / "child.vsnap", noise(10, 65536)[500:600])
    vsssnap("verify", "grandchild.vsnap", "--depth", "structure", folder=chain)
    default = vsssnap("verify", "grandchild.vsnap", folder=chain, status=1)
    assert "DAMAGED (vsnap; 1 problem)" in default
    for told in (
        default,
        vsssnap("verify", "grandchild.vsnap", "--depth", "content", folder=chain, status=1),
    ):
        assert "child.vsnap: " in told
        assert "(the volume's bytes 196608 to 262144)" in told


def test_a_missing_ancestor_is_named(chain: Path) -> None:
    (chain / "full.vsnap").unlink()
    command = [sys.executable, "-m", "vsssnap", "verify", "grandchild.vsnap"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=chain, timeout=60, check=False)
    assert done.returncode == 18
    assert done.stdout == ""  # no damage: there is nothing to list
    assert "child.vsnap's parent is not there (looked for full.vsnap)" in done.stderr
    assert "name it with --parent" in done.stderr


def test_an_increment_is_told_by_its_own_file(chain: Path) -> None:
    told = json.loads(vsssnap("info", "grandchild.vsnap", "--json", folder=chain))
    assert told["stored"] == (chain / "grandchild.vsnap").stat().st_size
