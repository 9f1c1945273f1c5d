"""The public interface: `__all__`, the modules' contents, the golden list and the reference agree."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys

import pytest

from checkout import TOP
from public_api import GOLDEN, MODULES, NOT_YET, PRESENT, defined_names, describe, public_names

pytestmark = pytest.mark.wheel

REGENERATE = "if the change is meant, run: PYTHONPATH=src python tests/support/public_api.py"

# Heavy, or of other uses than most callers': loaded only by what needs them.
NOT_LOADED = frozenset(
    {"cffi", "_cffi_backend", "pycparser", "click", "rich", "hypothesis", "pytest", "asyncio"}
)


@pytest.mark.parametrize("name", MODULES)
def test_public_modules_are_those_that_exist(name: str) -> None:
    spec = importlib.util.find_spec(name)
    assert (spec is None or spec.origin is None) == (name in NOT_YET), (
        f"{name}: NOT_YET in tests/support/public_api.py lists the announced modules that do not exist"
    )


@pytest.mark.parametrize("module_name", PRESENT)
def test_every_public_name_exists_once(module_name: str) -> None:
    module, names = importlib.import_module(module_name), public_names(module_name)
    assert [name for name in names if not hasattr(module, name)] == []
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("module_name", PRESENT)
def test_all_holds_every_public_name(module_name: str) -> None:
    module = importlib.import_module(module_name)
    # A module that only gathers names as X as X needs no __all__.
    listed = set(getattr(module, "__all__", None) or defined_names(module_name))
    assert {name for name in listed if not name.startswith("__")} == defined_names(module_name)


@pytest.mark.parametrize("module_name", PRESENT)
def test_every_public_name_has_a_docstring(module_name: str) -> None:
    module = importlib.import_module(module_name)
    assert inspect.getdoc(module)
    documented = [getattr(module, name) for name in public_names(module_name)]
    documented = [value for value in documented if inspect.isclass(value) or inspect.isroutine(value)]
    assert [value.__qualname__ for value in documented if not (value.__doc__ or "").strip()] == []


def test_top_module_only_gathers_names() -> None:
    # "The public names as X as X, nothing else": apart from its docstring, version, __all__, and
    # what makes a name appear on first use.
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.If, ast.Expr)
    module = importlib.import_module("vsssnap")
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef):
            assert node.name in ("__getattr__", "__dir__"), node.name
        else:
            assert isinstance(node, allowed), ast.unparse(node)


def test_interface_equals_the_golden_list() -> None:
    golden = GOLDEN.read_text(encoding="utf-8").splitlines()
    now = describe()
    gone = "\n".join(f"- {line}" for line in golden if line not in now)
    new = "\n".join(f"+ {line}" for line in now if line not in golden)
    assert now == golden, f"the public interface changed; {REGENERATE}\n{gone}\n{new}"


def test_reference_names_everything_public() -> None:
    text = (TOP / "docs" / "reference.md").read_text(encoding="utf-8")
    words = set(
        re.findall(
            r"\w+", " ".join(re.findall(r"`[^`\n]+`|^```.*?^```|^#+ .*$", text, re.MULTILINE | re.DOTALL))
        )
    )
    missing = {
        f"{module_name}.{name}"
        for module_name in PRESENT
        for name in public_names(module_name)
        if name not in words
    }
    assert not missing, f"docs/reference.md does not mention {sorted(missing)}"


def test_import_loads_nothing_heavy() -> None:
    script = "import sys, vsssnap; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert set(loaded.stdout.split()) & NOT_LOADED == set()


def test_import_loads_no_parser_that_few_need() -> None:
    script = "import sys, vsssnap; print(*sys.modules); vsssnap.volumes.ShadowVolume"
    loaded = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    prefixes = ("vsssnap.volumes.shadow", "vsssnap.formats.sidecar", "vsssnap.formats.v", "vsssnap.formats.q")
    assert [name for name in loaded.stdout.split() if name.startswith(prefixes)] == []


def test_names_come_when_they_are_asked_for() -> None:
    script = """
import sys, vsssnap
print(*sorted(name for name in sys.modules if name.startswith("vsssnap.")))
assert set(dir(vsssnap)) >= set(vsssnap.__all__)
space = {}
exec("from vsssnap import *", space)
assert set(vsssnap.__all__) <= set(space)
assert vsssnap.errors.VssSnapError and vsssnap.vss.VssOptions
assert not hasattr(vsssnap, "no_such_name")
"""
    loaded = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.split() == ["vsssnap._version"]
