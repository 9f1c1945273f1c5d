"""The report: Markdown, and one plot of how every goal was reached."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from benchmarks.measure import Contender, Rounds, Spread
from benchmarks.profiles import described, profile, why
from benchmarks.scene import Goal, Scene, reached

MIB = 1 << 20
_PROGRAMS = {
    "qemu-img": "--version",
    "zstd": "--version",
    "cp": "--version",
    "ntfsclone": "--version",
    "borg": "--version",
    "restic": "version",
    "casync": "--version",
}


class Report:
    """Collects scenes and writes them down."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._goals: list[tuple[Scene, Goal, Spread]] = []

    def add(self, scene: Scene, found: Rounds) -> None:
        """Add what a scene measured."""
        first = scene.contenders[0].name
        head = "| | wall s (quartiles) | MiB/s | CPU s | peak MiB | output MiB | time, of the first |"
        lines = [f"## {scene.title}", "", head, "|---|---|---|---|---|---|---|"]
        for contender in scene.contenders:
            runs = found[contender.name]
            wall = Spread.of([run.wall for run in runs])
            rate = f"{scene.volume / MIB / wall.median:,.0f}" if scene.volume else "-"
            cpu = Spread.of([run.cpu for run in runs]).median
            memory = max(run.memory for run in runs) / MIB
            output = f"{runs[-1].output / MIB:,.1f}" if contender.output else "-"
            pairs = zip(runs, found[first], strict=True)
            share = Spread.of([run.wall / other.wall for run, other in pairs]).median
            lines.append(
                f"| {contender.name} | {wall.median:.2f} ({wall.low:.2f} to {wall.high:.2f}) |"
                f" {rate} | {cpu:.1f} | {memory:,.0f} | {output} | {share:.2f} |"
            )
        got = [(scene, goal, reached(goal, found)) for goal in scene.goals]
        self._goals += got
        self._parts.append("\n".join(lines))
        missed = {goal.faster: goal for _, goal, spread in got if spread.median < goal.least}
        for goal in missed.values():
            self._parts.append("\n".join(_reasons(scene, goal)))

    def write(self, folder: Path, volumes: Sequence[str], rounds: int) -> Path:
        """Write ``report.md`` and ``report.png``."""
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["# vsssnap beside its peers", "", *_machine(), f"- {rounds} rounds, contenders in turn", ""]
        lines += ["Volumes:", "", *(f"- {line}" for line in volumes), ""]
        lines += ["## Goals", "", "| scene | ratio | goal | median (quartiles) | |", "|---|---|---|---|---|"]
        for scene, goal, got in self._goals:
            mark = "reached" if got.median >= goal.least else "**missed**"
            lines.append(
                f"| {scene.name} | {goal.what} | {goal.least:.2f} |"
                f" {got.median:.2f} ({got.low:.2f} to {got.high:.2f}) | {mark} |"
            )
        path = folder / "report.md"
        plotted = self._plot(folder / "report.png")
        lines += ["", "![Every goal and what was reached](report.png)"] if plotted else []
        path.write_text("\n\n".join(["\n".join(lines), *self._parts]) + "\n", encoding="utf-8")
        return path

    def _plot(self, path: Path) -> bool:
        if not self._goals:
            return False
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot

        labels = [f"{scene.name}: {goal.what}" for scene, goal, _ in self._goals]
        values = [got.median / goal.least for _, goal, got in self._goals]
        errors = [
            [max(0.0, (got.median - got.low) / goal.least) for _, goal, got in self._goals],
            [max(0.0, (got.high - got.median) / goal.least) for _, goal, got in self._goals],
        ]
        figure, axes = pyplot.subplots(figsize=(9, 1 + 0.32 * len(labels)))
        colours = ["#2a7f62" if value >= 1 else "#c0392b" for value in values]
        axes.barh(range(len(labels)), values, xerr=errors, color=colours, height=0.6, ecolor="#555555")
        axes.axvline(1.0, color="#222222", linewidth=1)
        axes.set_yticks(range(len(labels)), labels, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("what was reached, as a share of the goal (1 = goal; bars are quartiles)")
        figure.tight_layout()
        figure.savefig(path, dpi=110)
        pyplot.close(figure)
        return True


def _reasons(scene: Scene, goal: Goal) -> list[str]:
    """Where the time of a contender goes that missed a goal, beside the bound's if there is one."""
    title = f"Where the time of {goal.faster} goes ({scene.name})"
    lacking = why()
    if lacking:
        return [f"### {title}", "", f"No profile: {lacking}."]
    contenders = {contender.name: contender for contender in scene.contenders}
    wanted = [contenders[goal.faster]]
    slower = (goal.slower,) if isinstance(goal.slower, str) else goal.slower
    place = scene.contenders.index(wanted[0])
    nearest = sorted(scene.contenders, key=lambda one: abs(scene.contenders.index(one) - place))
    limits = [one for one in [*(contenders[name] for name in slower), *nearest] if _is_bound(one)]
    wanted += limits[:1]
    print(f"    profiling {goal.faster}", flush=True)
    return [f"### {title}", "", *described([profile(one) for one in wanted])]


def _is_bound(contender: Contender) -> bool:
    return any("bound.py" in part for part in contender.command)


def _machine() -> list[str]:
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    processors = sum(line.startswith("processor") for line in Path("/proc/cpuinfo").read_text().splitlines())
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("zstandard", "xxhash", "blake3"))
    lines = [
        f"- {model}, {processors} processors, Linux {platform.release()}, Python {platform.python_version()}",
        f"- {versions}",
    ]
    programs = []
    for name, option in _PROGRAMS.items():
        if shutil.which(name):
            done = subprocess.run([name, option], capture_output=True, text=True, check=False)
            programs.append((done.stdout or done.stderr).strip().split("\n")[0])
    return [*lines, f"- {'; '.join(programs)}"]
