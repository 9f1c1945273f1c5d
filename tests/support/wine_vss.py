"""The Windows Python of `wine`, with libraries of a test's own beside it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import requirements
import wine
from checkout import TOP

VOLSNAP = TOP / "tests" / "labs" / "wine_vss" / "volsnap.c"
_COM = TOP / "tests" / "labs" / "wine_com" / "com.cpp"
_FILES = ["KEPT", "LIVE", "BITMAP", "LOST", "LOSE_AFTER", "TARGET", "IN_USE", "DISK", "RUNS", "HANG", "DEAF"]
STRICT = TOP / "tests" / "labs" / "wine_strict"
VOLUME = "\\\\?\\GLOBALROOT\\Device\\HarddiskVolume3"
"""The live volume of the driver."""
_SERVICES = ("VSS", "vsssnaplab")  # that tests make, and remove
_TIMEOUT = 800.0  # seconds for one program: what takes longer hangs, however busy the machine is


class VssPython:
    """A copy of the Windows Python: what lies beside a program is loaded first."""

    def __init__(self, folder: Path) -> None:
        """Set it up.

        Args:
            folder: Empty; holds it.
        """
        self.wine = wine.lab()
        for service in _SERVICES:
            self.wine.remove_service(service)
        self.folder = folder / "python"
        shutil.copytree(self.wine.folder / "python", self.folder)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``python.exe`` and give its output and its errors apart; it may fail."""
        return subprocess.run(
            ["wine", str(self.folder / "python.exe"), *arguments],
            env={**self.wine.environment, "WINEDLLOVERRIDES": "vssapi=n", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )

    def build(self, name: str, *sources: Path) -> None:
        """Compile a library of COM's, with what all of them share, and put it beside ``python.exe``.

        All of it at once, for most of the time is spent on the headers of Windows.
        """
        compiler = requirements.require_program("x86_64-w64-mingw32-g++")
        whole = self.folder / f"{name}.cpp"
        whole.write_text("".join(f'#include "{one}"\n' for one in (_COM, *sources) if one.suffix == ".cpp"))
        others = [str(one) for one in sources if one.suffix != ".cpp"]
        command = [compiler, "-std=c++17", "-O1", "-Wall", "-Wno-non-virtual-dtor", "-D_WIN32_WINNT=0x0A00"]
        command += ["-DINITGUID", "-shared", "-static", "-o", str(self.folder / name), str(whole), *others]
        subprocess.run([*command, "-lole32", "-loleaut32", "-luuid"], check=True)

    def build_driver(self, name: str, source: Path, *options: str) -> None:
        """Compile a kernel driver and put it beside ``python.exe``."""
        compiler = requirements.require_program("x86_64-w64-mingw32-gcc")
        kit = "/usr/share/mingw-w64/include/ddk"
        command = [compiler, "-O1", "-Wall", "-shared", "-nostdlib", f"-I{kit}", *options, str(source)]
        command += ["-Wl,--subsystem,native", "-Wl,-e,DriverEntry", "-o", str(self.folder / name)]
        subprocess.run([*command, "-lntoskrnl", "-lhal"], check=True)

    def build_volsnap(self, folder: Path, *, sector_size: int = 512) -> dict[str, Path]:
        """Compile the driver of shadow copies; the files in ``folder`` that it reads, by name."""
        files = {name: folder / name.lower() for name in _FILES}
        options = [f"-DSECTOR={sector_size}"]
        for name, path in files.items():
            text = ("\\??\\" + wine.windows(path)).replace("\\", "\\\\")
            options.append(f'-D{name}=L"{text}"')
        self.build_driver("volsnap.sys", VOLSNAP, *options)
        return files


def played(program: str, folder: Path) -> dict[str, Any]:
    """What a program of `STRICT` found, which plays scenes against the strict vssapi.dll.

    Args:
        program: Its name.
        folder: Empty; holds the Windows Python that runs it.
    """
    python = VssPython(folder)
    python.build("vssapi.dll", *sorted(STRICT.glob("*.cpp")), STRICT / "vssapi.def")
    try:
        done = python.run(wine.windows(STRICT / program))
    finally:
        python.wine.stop()
    assert not done.returncode, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["watched"], "COM's memory is seen"
    return found
