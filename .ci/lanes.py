"""Run the lanes of the test suite: each with its time, its budget and its counts.

Called by `.ci/test`, which has set up the environment this runs in.  A lane that fails
fails the run; one that is over its budget is named loudly and does not.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
PYTEST = (
    sys.executable,
    "-X",
    "faulthandler",
    "-W",
    "error",
    "-m",
    "pytest",
    "-q",
    "--durations=5",
    "-p",
    "no:cacheprovider",
    "--continue-on-collection-errors",
)
MINUTE = 60.0
LANES = ("lint", "types", "unit", "interop", "labs", "wheel", "long")
# Every processor runs the tests of another file: these depend on no machine-wide state, as labs do.
SHARED = ("-n", "auto", "--dist", "loadfile")
# Tests that ask foreign readers of images have a lane of their own: what they cost is theirs.
INTEROP = "tests/interop"


@dataclasses.dataclass
class Counts:
    """Tests by outcome, as pytest reports them."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other: Counts) -> None:
        """Add another lane's counts."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped


@dataclasses.dataclass
class Result:
    """One line of the table at the end."""

    lane: str
    seconds: float
    budget: float  # seconds
    ok: bool
    counts: Counts | None  # None for a lane that runs no tests


@dataclasses.dataclass
class Context:
    """What every lane needs to know."""

    scratch: Path
    wheel_python: Path
    environment: dict[str, str]


def run(command: tuple[str, ...], context: Context, *, cwd: Path = TOP, **extra: str) -> bool:
    """Run a command with its output going straight to ours; whether it succeeded."""
    print("$ " + " ".join(command), flush=True)
    environment = context.environment | extra
    return (
        subprocess.run(command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, check=False).returncode
        == 0
    )


def pytest(
    context: Context, name: str, *arguments: str, python: tuple[str, ...] = PYTEST, cwd: Path = TOP
) -> tuple[bool, Counts]:
    """Run pytest; its success and its counts.  A run that dies counts as one failure."""
    report = context.scratch / f"{name.replace(':', '-')}.xml"
    ok = run((*python, f"--junitxml={report}", *arguments), context, cwd=cwd)
    try:
        suites = list(ElementTree.parse(report).getroot().iter("testsuite"))  # noqa: S314 - our own report
    except (OSError, ElementTree.ParseError):
        return False, Counts(failed=1)
    total, failed, skipped = 0, 0, 0
    for suite in suites:
        total += int(suite.get("tests", "0"))
        failed += int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
        skipped += int(suite.get("skipped", "0"))
    counts = Counts(max(0, total - failed - skipped), failed, skipped)
    if not ok and not counts.failed:
        counts.failed = 1
    return ok, counts


def lint(context: Context) -> bool:
    """Ruff, as linter and as judge of the format."""
    ruff = (sys.executable, "-m", "ruff")
    linted = run((*ruff, "check", "--no-cache", "."), context)
    return run((*ruff, "format", "--no-cache", "--check", "."), context) and linted


def types(context: Context) -> bool:
    """Mypy for both systems, whichever this one is."""
    with open(TOP / "pyproject.toml", "rb") as file:
        named = tomllib.load(file)["tool"]["mypy"]["files"]
    # Mypy refuses a folder that holds no Python; git keeps no empty one.
    paths = [name for name in named if (TOP / name).is_file() or any((TOP / name).rglob("*.py"))]
    ok = True
    # The tests drive kernels and signals of Linux; what Windows gets is the library.
    for platform, checked in (("linux", paths), ("win32", ["src"])):
        cache = f"--cache-dir={context.scratch.parent / 'mypy' / platform}"
        ok = run((sys.executable, "-m", "mypy", "--platform", platform, cache, *checked), context) and ok
    return ok


def lab_groups(context: Context) -> dict[str, list[str]]:
    """The files with labs, by group: a file under tests/labs, else a folder of tests."""
    command = (*PYTEST, "--collect-only", "-q", "-q", "-m", "lab and not long")
    listing = subprocess.run(
        command,
        cwd=TOP,
        env=context.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode not in (0, 5):  # 5: nothing was collected
        print(listing.stdout, listing.stderr, sep="\n", flush=True)
        return {"collection": ["tests"]}  # running it shows the same error, and fails the lane
    groups: dict[str, list[str]] = {}
    for line in listing.stdout.splitlines():
        file = line.split("::")[0].rsplit(":", 1)[0].strip()
        if not file.startswith("tests/") or not file.endswith(".py"):
            continue
        parts = Path(file).parts[1:]
        group = (
            Path(parts[1]).stem.removeprefix("test_") if parts[0] == "labs" else parts[0].removesuffix(".py")
        )
        files = groups.setdefault(group, [])
        if file not in files:
            files.append(file)
    return groups


def wheel(context: Context) -> tuple[bool, Counts]:
    """Build from an sdist, install elsewhere, and run the public tests with no source tree in sight."""
    work = context.scratch / "wheel"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    none = Counts(failed=1)
    if not run((sys.executable, "-m", "build", "--no-isolation", "--outdir", str(work), "."), context):
        return False, none
    wheels = list(work.glob("*.whl"))
    if len(wheels) != 1:
        print(f"{len(wheels)} wheels were built, expected one", flush=True)
        return False, none
    python = str(context.wheel_python)
    install = (
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--force-reinstall",
        str(wheels[0]),
    )
    if not run(install, context):
        return False, none
    copy = work / "elsewhere"
    for name in ("tests", "docs"):
        shutil.copytree(TOP / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
        shutil.copy(TOP / name, copy)
    far = dataclasses.replace(
        context, environment={k: v for k, v in context.environment.items() if k != "PYTHONPATH"}
    )
    where = f"import vsssnap; assert not vsssnap.__file__.startswith({str(TOP)!r}), vsssnap.__file__"
    helped = run((python, "-I", "-W", "error", "-c", where), far, cwd=copy)
    helped = run((str(context.wheel_python.with_name("vsssnap")), "--help"), far, cwd=copy) and helped
    ok, counts = pytest(
        far, "wheel", "-m", "wheel and not lab and not long", python=(python, *PYTEST[1:]), cwd=copy
    )
    return ok and helped, counts


def timed_lanes(wanted: list[str], context: Context, *, long: bool) -> Iterator[Result]:
    """Run the wanted lanes in order; each result as soon as it is known."""

    def chosen(lane: str) -> bool:
        return lane in wanted or (long if lane == "long" else not wanted)

    for lane, budget, check in (("lint", 0.5 * MINUTE, lint), ("types", 2 * MINUTE, types)):
        if chosen(lane):
            begin = heading(lane)
            ok = check(context)
            yield Result(lane, time.monotonic() - begin, budget, ok, None)
    if chosen("unit"):
        begin = heading("unit")
        ok, counts = pytest(context, "unit", *SHARED, "-m", "not lab and not long", f"--ignore={INTEROP}")
        yield Result("unit", time.monotonic() - begin, 4 * MINUTE, ok, counts)
    if chosen("interop"):
        begin = heading("interop")
        ok, counts = pytest(context, "interop", *SHARED, "-m", "not lab and not long", INTEROP)
        yield Result("interop", time.monotonic() - begin, 3 * MINUTE, ok, counts)
    only = [lane.removeprefix("labs:") for lane in wanted if lane.startswith("labs:")]
    if chosen("labs") or only:
        groups = lab_groups(context)
        if not groups:
            print("no labs were found: they are tests marked `lab`", flush=True)
            yield Result("labs", 0, 0, ok=False, counts=None)
        for name in only:
            if name not in groups:
                print(f"no lab group {name}; there are: {', '.join(groups)}", flush=True)
                yield Result(f"labs:{name}", 0, 0, ok=False, counts=None)
        for group, files in groups.items():
            if chosen("labs") or group in only:
                begin = heading(f"labs:{group}")
                ok, counts = pytest(context, f"labs:{group}", "-m", "lab and not long", *files)
                yield Result(f"labs:{group}", time.monotonic() - begin, 3 * MINUTE, ok, counts)
    if chosen("wheel"):
        begin = heading("wheel")
        ok, counts = wheel(context)
        yield Result("wheel", time.monotonic() - begin, 2 * MINUTE, ok, counts)
    if chosen("long"):
        begin = heading("long")
        ok, counts = pytest(context, "long", *SHARED, "--long", "-m", "long and not lab")
        yield Result("long", time.monotonic() - begin, 90 * MINUTE, ok, counts)
        begin = heading("long labs")
        ok, counts = pytest(context, "long-labs", "--long", "-m", "long and lab")
        yield Result("long labs", time.monotonic() - begin, 30 * MINUTE, ok, counts)


def heading(lane: str) -> float:
    """Begin a lane: say so, and start its clock."""
    print(f"\n===== {lane} =====", flush=True)
    return time.monotonic()


def clock(seconds: float) -> str:
    """Minutes and seconds, for people."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def report(results: list[Result]) -> bool:
    """Print the table and the closing line; whether all is well."""
    total = Counts()
    print(f"\n{'lane':<24}{'time':>7}{'budget':>8}  {'result':<8}{'passed':>7}{'failed':>7}{'skipped':>8}")
    for result in results:
        numbers = ""
        if result.counts is not None:
            total.add(result.counts)
            numbers = f"{result.counts.passed:>7}{result.counts.failed:>7}{result.counts.skipped:>8}"
        verdict = "ok" if result.ok else "FAILED"
        late = "  <-- OVER BUDGET" if result.seconds > result.budget > 0 else ""
        times = f"{clock(result.seconds):>7}{clock(result.budget):>8}"
        print(f"{result.lane:<24}{times}  {verdict:<8}{numbers}{late}")
    print(f"{'all':<24}{clock(sum(result.seconds for result in results)):>7}")
    broken = [result.lane for result in results if not result.ok]
    if broken:
        print(f"failed: {', '.join(broken)}")
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped", flush=True)
    return not broken


def main() -> int:
    """Parse the arguments of `.ci/test` and run."""
    parser = argparse.ArgumentParser(
        prog=".ci/test",
        description="Set up all that the tests need and run them.",
        epilog=f"lanes: {', '.join(LANES)}, labs:GROUP",
    )
    parser.add_argument("--long", action="store_true", help="also the full matrices and fuzzing (hours)")
    parser.add_argument("--wheel-venv", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("lanes", nargs="*", metavar="lane", help="only these; all but `long` by default")
    arguments = parser.parse_args()
    for lane in arguments.lanes:
        if lane not in LANES and not lane.startswith("labs:"):
            parser.error(f"no lane {lane}; there are {', '.join(LANES)} and labs:GROUP")
    arguments.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=arguments.cache) as scratch:
        environment = dict(os.environ)
        environment["PYTHONPATH"] = str(TOP / "src")
        environment.setdefault("CI", "true")  # the same examples every time
        # The checkout stays as it was, and the many programs that tests start compile nothing.
        environment["PYTHONPYCACHEPREFIX"] = str(Path(scratch) / "pycache")
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["HYPOTHESIS_STORAGE_DIRECTORY"] = str(arguments.cache / "hypothesis")
        context = Context(Path(scratch), arguments.wheel_venv / "bin" / "python", environment)
        results = []
        for result in timed_lanes(arguments.lanes, context, long=arguments.long):
            results.append(result)
            state = "ok" if result.ok else "FAILED"
            print(
                f"----- {result.lane}: {state}, {clock(result.seconds)} of {clock(result.budget)}", flush=True
            )
        return 0 if report(results) else 1


if __name__ == "__main__":
    sys.exit(main())
