from __future__ import annotations

import importlib.util
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import TOP
from guests import declare
from vsssnap._registry import Registry
from vsssnap.errors import UsageError

# What the drivers of these tests extend, and the drivers; found by the dotted path of a module
# that the fixture writes, as a guest's would be.
MODULE = """
from abc import ABC, abstractmethod

class Base(ABC):
    api = 1
    @abstractmethod
    def work(self): ...

class One(Base):
    name = "one"
    def work(self): ...

class Two(Base):
    name = "two"
    def work(self): ...

class Old(Two):
    api = 0

class Without(Two):
    api = None

class Half(Base):
    name = "two"

class Stranger:
    api = 1
    name = "two"
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "kinds_for_registry.py").write_text(MODULE)
    (tmp_path / "ends_for_registry.py").write_text("raise SystemExit(3)")
    (tmp_path / "throws_for_registry.py").write_text("raise RuntimeError('broken')")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in list(sys.modules):
        if name.endswith("_for_registry"):
            del sys.modules[name]


def made(builtins: dict[str, str] | None = None) -> Registry[object]:
    return Registry(
        "kind of thing",
        "vsssnap.test_kinds",
        "kinds_for_registry:Base",
        1,
        {"one": "kinds_for_registry:One"} if builtins is None else builtins,
    )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(str(folder))
    return folder


def entry(line: str) -> str:
    return f"[vsssnap.test_kinds]\n{line}\n"


def test_builtin_is_imported_when_it_is_asked_for() -> None:
    registry = made()
    assert registry.names() == ["one"]
    assert "kinds_for_registry" not in sys.modules
    assert registry.get("one").__name__ == "One"


def test_unknown_name_lists_those_known() -> None:
    with pytest.raises(UsageError, match="there is no kind of thing 'three': known are one"):
        made().get("three")


def test_guest_is_found_behind_the_builtins(site: Path) -> None:
    declare(site, "guest-two", entry("two = kinds_for_registry:Two"))
    registry = made()
    assert registry.names() == ["one", "two"]
    assert registry.get("two").__name__ == "Two"
    assert registry.problems() == {}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("kinds_for_registry:Old", "made for api 0, this vsssnap has api 1"),
        ("kinds_for_registry:Without", "made for api None"),
        ("kinds_for_registry:Stranger", "is no subclass of kinds_for_registry.Base"),
        ("kinds_for_registry:One", "its class calls itself 'one'"),
        ("kinds_for_registry:Half", "it lacks work"),
        ("kinds_for_registry:Nobody", "AttributeError"),
        ("kinds_for_registry", "is no subclass of"),
        ("no_such_module_for_registry:Two", "ModuleNotFoundError"),
        ("throws_for_registry:Two", "RuntimeError: broken"),
        ("ends_for_registry:Two", "SystemExit: 3"),
    ],
)
def test_guest_that_cannot_be_used_is_left_out_and_named(site: Path, value: str, reason: str) -> None:
    declare(site, "guest-two", entry(f"two = {value}"), version="3.1")
    registry = made()
    assert list(registry.load()) == ["one"]
    (problem,) = registry.problems().values()
    assert problem.startswith(f"guest-two 3.1 ({value}): ")
    assert reason in problem
    with pytest.raises(UsageError, match=r"kind of thing 'two' does not load: guest-two 3.1") as caught:
        registry.get("two")
    assert caught.value.hint == "upgrade the package that declares it"


def test_builtin_that_does_not_load_is_named() -> None:
    registry = made({"one": "kinds_for_registry:One", "lost": "no_such_module_for_registry:Lost"})
    assert list(registry.load()) == ["one"]
    assert registry.problems()["lost"].startswith("vsssnap (no_such_module_for_registry:Lost): ")


def test_collision_with_a_builtin_names_both(site: Path) -> None:
    declare(site, "guest-one", entry("one = kinds_for_registry:One"))
    with pytest.raises(
        UsageError,
        match=r"'one' is declared by vsssnap \(.*\) and by guest-one 1.0 \(.*\): uninstall all but one",
    ):
        made().get("one")


def test_collision_of_two_guests_names_both_and_harms_no_other(site: Path) -> None:
    declare(site, "guest-a", entry("two = kinds_for_registry:Two"))
    declare(site, "guest-b", entry("two = kinds_for_registry:Two"))
    registry = made()
    with pytest.raises(UsageError, match=r"guest-[ab] 1.0 .* and by guest-[ab] 1.0"):
        registry.get("two")
    assert registry.get("one").__name__ == "One"
    assert list(registry.problems()) == ["two"]


def test_distribution_that_is_twice_on_the_path_is_no_collision(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (site, tmp_path / "again"):
        declare(folder, "guest-two", entry("two = kinds_for_registry:Two"))
    monkeypatch.syspath_prepend(str(tmp_path / "again"))
    assert made().get("two").__name__ == "Two"


def test_unreadable_entry_points_of_another_package_harm_nobody(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    declare(site, "guest-two", entry("two = kinds_for_registry:Two"))
    declare(site, "aaa-broken", "[vsssnap.test_kinds]\nthis line says nothing\n")
    with caplog.at_level(logging.WARNING, "vsssnap"):
        assert made().get("two").__name__ == "Two"
    assert "aaa_broken" in caplog.text


def test_lent_driver_comes_first_and_goes_again() -> None:
    registry = made()
    one = registry.get("one")

    class Lent:
        name = "one"

    with registry.lent("one", Lent):
        assert registry.get("one") is Lent
    assert registry.get("one") is one


def test_several_threads_get_one_class() -> None:
    registry = made()
    found: list[type[object]] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        found.append(registry.get("one"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_what_reads_lists_of_packages_is_imported_only_for_a_guest(tmp_path: Path) -> None:
    """It takes as long as a third of the library, in every run of every program."""
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from vsssnap.formats import by_name\n"
        "by_name('vsnap'); print('importlib.metadata' in sys.modules)"
    )

    def imported(*folders: Path) -> str:
        command = [sys.executable, "-S", "-c", program, str(TOP / "src"), *map(str, folders)]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    other, guest = tmp_path / "other", tmp_path / "guest"
    declare(other, "other-package", "[console_scripts]\ntool = somewhere:main\n")
    declare(guest, "guest-two", "[vsssnap.formats]\ntwo = nowhere:Two\n")
    lib = tmp_path / "lib"
    lib.mkdir()
    for name in ("zstandard", "xxhash", "blake3", "cffi"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        (lib / name).symlink_to(spec.submodule_search_locations[0])
    assert imported(lib, other) == "False"
    assert imported(lib, other, guest) == "True"


def test_guests_in_an_archive_are_found(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(tmp_path / "packed", "guest-two", entry("two = kinds_for_registry:Two"))
    archive = shutil.make_archive(str(tmp_path / "guests"), "zip", tmp_path / "packed")
    monkeypatch.syspath_prepend(archive)
    assert made().names() == ["one", "two"]
