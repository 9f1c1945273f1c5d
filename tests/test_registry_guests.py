"""Drivers in packages of their own, as a user installs them: by entry points alone, in a new Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from checkout import TOP
from guests import GUEST, declare, install_guest, run

pytestmark = pytest.mark.wheel

AVAILABLE = "import json, vsssnap; from vsssnap import formats, providers; print(json.dumps({}.available()))"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_guest(tmp_path_factory.mktemp("guest"))


def available(kind: str, *sites: Path, **environment: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(run(AVAILABLE.replace("{}", kind), *sites, **environment))
    return found


def test_guest_format_is_available(site: Path) -> None:
    assert available("formats", site)["box"] == ""


def test_guest_provider_is_available_and_says_what_it_lacks(site: Path, tmp_path: Path) -> None:
    assert available("providers", site)["copier"] == "set VSSSNAP_GUEST_FOLDER to a folder for its copies"
    assert available("providers", site, VSSSNAP_GUEST_FOLDER=str(tmp_path))["copier"] == ""


def test_guest_is_not_imported_before_it_is_needed(site: Path) -> None:
    program = "import sys, vsssnap, vsssnap.formats, vsssnap.providers; print('vsssnap_guest' in sys.modules)"
    assert run(program, site) == "False"


def test_without_the_guest_there_is_none() -> None:
    assert "box" not in available("formats")


def test_guest_format_is_chosen_by_suffix_and_by_content(site: Path, tmp_path: Path) -> None:
    program = """
import os
from vsssnap import open_device, open_image, save_image, verify_image
data = os.urandom(300_000) + bytes(3 << 20)
with open("disk", "wb") as file:
    file.write(data)
with open_device("disk") as disk:
    report = save_image(disk, "disk.box")
os.rename("disk.box", "renamed")
with open_image("renamed") as image:
    assert (image.format, image.pread(len(data), 0)) == ("box", data), image
print(report.format, verify_image("renamed").ok)
"""
    assert run(f"import os; os.chdir({str(tmp_path)!r})\n{program}", site) == "box True"


def test_guest_provider_takes_keeps_finds_and_purges_snapshots(site: Path, tmp_path: Path) -> None:
    source = tmp_path / "disk"
    source.write_bytes(b"before" * 1000)
    home = tmp_path / "snapshots"
    home.mkdir()
    take = f"""
from vsssnap import Snapshot
with Snapshot({str(source)!r}, provider="copier", persistent=True) as s:
    print(s.id)
"""
    name = run(take, site, VSSSNAP_GUEST_FOLDER=str(home))
    source.write_bytes(b"after!" * 1000)
    use = f"""
from vsssnap import Snapshot, list_snapshots, purge
(record,) = list_snapshots()
assert (record.provider, record.snapshot_id, record.owned, record.owner_alive) == (
    "copier", {name!r}, True, False), record
with Snapshot.attach({name!r}) as s, s.open() as disk:
    assert disk.pread(12, 0) == b"beforebefore"
assert [gone.snapshot_id for gone in purge()] == [{name!r}]
print(list_snapshots())
"""
    assert run(use, site, VSSSNAP_GUEST_FOLDER=str(home)) == "[]"
    assert list(home.iterdir()) == []


def test_guest_snapshot_that_is_not_persistent_leaves_nothing(site: Path, tmp_path: Path) -> None:
    source = tmp_path / "disk"
    source.write_bytes(b"before" * 1000)
    home = tmp_path / "snapshots"
    home.mkdir()
    program = f"""
from vsssnap import Snapshot
with Snapshot({str(source)!r}, provider="copier") as s, s.open() as disk:
    print(disk.pread(6, 0).decode(), disk.metadata.provider)
"""
    assert run(program, site, VSSSNAP_GUEST_FOLDER=str(home)) == "before copier"
    assert list(home.iterdir()) == []


def test_guest_provider_keeps_the_contract(site: Path, tmp_path: Path) -> None:
    source = tmp_path / "disk"
    source.write_bytes(bytes(range(256)) * 400)
    home = tmp_path / "snapshots"
    home.mkdir()
    program = f"""
import os, shutil
from pathlib import Path
from vsssnap.providers import by_name
from vsssnap.testing import CheckedVolume, check_provider
source, home = Path({str(source)!r}), Path({str(home)!r})
def write(data, offset):
    with source.open("r+b") as file:
        file.seek(offset)
        file.write(data)
def lose():
    for snapshot in home.iterdir():
        shutil.rmtree(snapshot)
volume = CheckedVolume(volume=str(source), write=write, read=source.read_bytes)
check_provider(lambda: by_name("copier"), [volume], lose=lose, left=lambda: os.listdir(home))
print("kept")
"""
    assert run(program, site, VSSSNAP_GUEST_FOLDER=str(home)) == "kept"


def test_guest_format_keeps_the_contract(site: Path) -> None:
    program = "from vsssnap.formats import by_name; from vsssnap.testing import check_format"
    assert run(f"{program}; check_format(by_name('box')); print('kept')", site) == "kept"


def test_broken_guest_is_left_out_with_its_reason(site: Path, tmp_path: Path) -> None:
    points = "[vsssnap.formats]\nbroken = vsssnap_guest.broken:Nothing\n"
    found = available("formats", site, declare(tmp_path, "broken-guest", points))
    expected = "broken-guest 1.0 (vsssnap_guest.broken:Nothing): RuntimeError: this guest is broken"
    assert (found["broken"], found["box"], found["raw"]) == (expected, "", "")


@pytest.mark.parametrize(
    ("kind", "name", "attribute", "reason"),
    [
        ("formats", "otherapi", "OtherApiFormat", "made for api 99, this vsssnap has api 1"),
        ("providers", "otherapi", "OtherApiProvider", "made for api 99, this vsssnap has api 1"),
        ("formats", "misnamed", "MisnamedFormat", "its class calls itself 'something-else'"),
        ("formats", "half", "HalfFormat", "it lacks create, open"),
        ("formats", "noformat", "NoFormat", "is no subclass of vsssnap.formats.base.ImageFormat"),
    ],
)
def test_unfit_guest_is_left_out_with_its_reason(
    site: Path, tmp_path: Path, kind: str, name: str, attribute: str, reason: str
) -> None:
    points = f"[vsssnap.{kind}]\n{name} = vsssnap_guest.unwelcome:{attribute}\n"
    found = available(kind, site, declare(tmp_path, "unfit-guest", points))
    assert reason in found[name]
    assert found[name].startswith("unfit-guest 1.0 ")


def test_guest_that_takes_a_builtin_name_is_an_error_that_names_both(site: Path, tmp_path: Path) -> None:
    declare(tmp_path, "second-raw", "[vsssnap.formats]\nraw = vsssnap_guest.unwelcome:SecondRawFormat\n")
    program = """
from vsssnap import formats
from vsssnap.errors import UsageError
try:
    formats.by_name("raw")
except UsageError as exc:
    print(exc)
assert formats.available()["box"] == ""
"""
    assert run(program, site, tmp_path) == (
        "image format 'raw' is declared by vsssnap (vsssnap.formats.raw:RawFormat)"
        " and by second-raw 1.0 (vsssnap_guest.unwelcome:SecondRawFormat): uninstall all but one"
    )


def test_guest_that_throws_while_probing_does_not_keep_others_from_it(site: Path, tmp_path: Path) -> None:
    declare(tmp_path, "thrower", "[vsssnap.formats]\nthrowing = vsssnap_guest.unwelcome:ThrowingFormat\n")
    (tmp_path / "x.raw").write_bytes(b"x")
    (tmp_path / "y").write_bytes(b"BOXIMAGE" + bytes(5000))
    program = f"""
from vsssnap import open_image
from vsssnap.errors import CorruptImageError
print(open_image({str(tmp_path / "x.raw")!r}).format)
try:
    open_image({str(tmp_path / "y")!r})
except CorruptImageError as exc:
    print("box" in str(exc))
"""
    assert run("import warnings; warnings.simplefilter('ignore')\n" + program, site, tmp_path) == "raw\nTrue"


def test_guide_shows_the_guest_as_it_is() -> None:
    page = (TOP / "docs" / "formats" / "writing-a-format.md").read_text(encoding="utf-8")
    assert f"```python\n{(GUEST / 'vsssnap_guest' / 'box.py').read_text(encoding='utf-8')}```" in page
