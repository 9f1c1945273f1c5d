"""The Windows Python of the laboratory: CPython's own build, run by Wine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath

import requirements
from checkout import TOP

_TIMEOUT = 240.0  # seconds for one program


def windows_path(path: Path) -> str:
    """A path of this machine as Wine shows it."""
    return str(PureWindowsPath("Z:/") / path.resolve().relative_to("/"))


class WindowsPython:
    """A copy of the Windows Python, so that a test may put libraries beside it."""

    def __init__(self, folder: Path) -> None:
        """Set it up.

        Args:
            folder: Empty; holds it.
        """
        requirements.require_lab("wine", root=False)
        built = os.environ.get("VSSSNAP_WINDOWS_PYTHON", "")
        if not (Path(built) / ".complete").is_file():
            requirements.unavailable("VSSSNAP_WINDOWS_PYTHON names no Windows Python: .ci/test makes one")
        self.folder = folder / "python"
        shutil.copytree(Path(built) / "python", self.folder)
        self._prefix = Path(built) / "prefix"
        places = ["python311.zip", ".", windows_path(TOP / "src"), windows_path(TOP / "tests" / "support")]
        places += [windows_path(Path(built) / "site"), "import site"]
        (self.folder / "python311._pth").write_text("\n".join(places) + "\n")

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``python.exe`` and give its output; it may fail."""
        return subprocess.run(
            ["wine", str(self.folder / "python.exe"), *arguments],
            env=self._environment(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        wine = {"WINEPREFIX": str(self._prefix), "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "vssapi=n"}
        return {**kept, **wine, "PYTHONDONTWRITEBYTECODE": "1", "CI": "true", **more}

    def build(self, name: str, *sources: Path, libraries: tuple[str, ...] = ()) -> None:
        """Compile a library and put it beside ``python.exe``."""
        compiler = requirements.require_program("x86_64-w64-mingw32-g++")
        command = [compiler, "-std=c++17", "-O1", "-Wall", "-Wno-non-virtual-dtor", "-D_WIN32_WINNT=0x0A00"]
        command += ["-DINITGUID", "-shared", "-static", "-o", str(self.folder / name), *map(str, sources)]
        command += [f"-l{library}" for library in libraries]
        subprocess.run(command, check=True)

    def build_driver(self, name: str, source: Path, *options: str) -> None:
        """Compile a kernel driver and put it beside ``python.exe``."""
        compiler = requirements.require_program("x86_64-w64-mingw32-gcc")
        kit = "/usr/share/mingw-w64/include/ddk"
        command = [compiler, "-O1", "-Wall", "-shared", "-nostdlib", f"-I{kit}", *options, str(source)]
        command += ["-Wl,--subsystem,native", "-Wl,-e,DriverEntry", "-o", str(self.folder / name)]
        subprocess.run([*command, "-lntoskrnl", "-lhal"], check=True)
