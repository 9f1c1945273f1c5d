"""The program as a user runs it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import vsssnap
from sources import BytesReader, mixed
from vsssnap import ImageMetadata, save_image
from waiting import until

pytestmark = pytest.mark.timeout(170)

MIB = 1 << 20
COMMANDS = [
    "save",
    "restore",
    "verify",
    "info",
    "convert",
    "compare",
    "snapshots",
    "providers",
    "doctor",
    "demo",
]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(mixed(3 * MIB + 77))
    return path


def test_an_image_goes_round(disk: Path, tmp_path: Path) -> None:
    image, back, other = tmp_path / "a.vsnap", tmp_path / "back.raw", tmp_path / "b.raw"
    vsssnap("save", disk, image, "--live")
    vsssnap("verify", image)
    vsssnap("restore", image, back, "--verify")
    assert back.read_bytes() == disk.read_bytes()
    vsssnap("convert", image, other)
    assert other.read_bytes() == disk.read_bytes()
    vsssnap("compare", image, other)


def test_a_live_copy_says_that_it_may_be_torn(disk: Path, tmp_path: Path) -> None:
    assert "torn" in vsssnap("save", disk, tmp_path / "a.vsnap", "--live").stderr


def test_an_image_streams_to_standard_output(disk: Path, tmp_path: Path) -> None:
    with (tmp_path / "a.vsnap").open("wb") as out:
        subprocess.run(
            [sys.executable, "-m", "vsssnap", "save", str(disk), "-", "--live", "--format", "vsnap"],
            stdout=out,
            stderr=subprocess.PIPE,
            check=True,
        )
    vsssnap("compare", disk, tmp_path / "a.vsnap")


def test_damage_and_differences_are_exit_code_1(disk: Path, tmp_path: Path) -> None:
    image = tmp_path / "a.vsnap"
    vsssnap("save", disk, image, "--live")
    data = bytearray(image.read_bytes())
    data[len(data) // 2] ^= 1
    image.write_bytes(data)
    assert "DAMAGED" in vsssnap("verify", image, status=1).stdout
    other = tmp_path / "other.raw"
    content = bytearray(disk.read_bytes())
    content[MIB] ^= 1
    other.write_bytes(content)
    vsssnap("compare", disk, other, status=1)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("verify", "none.vsnap"), 18, "there is no image"),
        (("save", "none", "a.vsnap"), 3, "no provider can snapshot"),
        (("save", "none", "a.vsnap", "--live"), 15, "none"),
        (("save", "disk.raw", "a.xyz", "--live"), 19, "no image format has this suffix"),
        (("save", "disk.raw", "disk.raw", "--live"), 16, "is what is being read"),
        (("save", "disk.raw", "a.vsnap", "--live", "--option", "colour=red"), 2, "colour"),
        (("save", "disk.raw"), 2, "Missing"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    disk: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], status: int, says: str
) -> None:
    monkeypatch.chdir(disk.parent)
    assert says in vsssnap(*arguments, status=status).stderr
    assert sorted(os.listdir()) == ["disk.raw"]


def test_machines_get_one_document(disk: Path, tmp_path: Path) -> None:
    saved = json.loads(vsssnap("save", disk, tmp_path / "a.vsnap", "--live", "--json").stdout)
    assert saved
    info = json.loads(vsssnap("info", tmp_path / "a.vsnap", "--json").stdout)
    assert info["size"] == 3 * MIB + 77
    failed = vsssnap("verify", tmp_path / "none.vsnap", "--json", status=18)
    assert json.loads(failed.stdout or failed.stderr)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str) -> None:
    said = vsssnap(command, "--help").stdout
    assert re.search(r"Examples:\n +vsssnap ", said)
    assert "\\b" not in said


def test_doctor_and_providers_answer_on_any_machine() -> None:
    assert "reflink" in vsssnap("providers").stdout
    assert json.loads(vsssnap("doctor", "--json").stdout)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_save_leaves_nothing(tmp_path: Path, number: int, status: int) -> None:
    source = tmp_path / "big.raw"
    with source.open("xb") as file:
        for n in range(100):
            file.write(os.urandom(MIB // 2) * 2)
            file.seek((n + 1) * 2 * MIB)
        file.truncate(200 * MIB)
    target = tmp_path / "out.vsnap"
    # Slow enough that it is not over before the signal comes, however busy the machine is.
    command = [sys.executable, "-m", "vsssnap", "save", str(source), str(target), "--live"]
    with subprocess.Popen([*command, "--rate-limit", "20M"], stderr=subprocess.PIPE, text=True) as process:
        partial = Path(f"{target}.partial")
        assert until(partial.exists)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
    assert process.returncode == status, said
    assert "Traceback" not in said
    assert os.listdir(tmp_path) == ["big.raw"]


@pytest.mark.parametrize("stuck", ["data", "end"])
def test_a_pipe_that_nobody_reads_does_not_hold_ctrl_c(tmp_path: Path, stuck: str) -> None:
    """It takes 64 KiB: of one image a part of the data, of the other all but what it ends with."""
    source = tmp_path / "source.vsnap"
    data = os.urandom(4 * MIB) if stuck == "data" else b"little"
    said = ImageMetadata(user={"much": os.urandom(MIB).hex()})
    save_image(BytesReader(data), source, metadata=said)
    with subprocess.Popen(
        [sys.executable, "-m", "vsssnap", "convert", str(source), "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        time.sleep(1)  # the pipe is full by then
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        process.wait(120)
        took = time.monotonic() - begin
    assert process.returncode == 130
    assert took < 60, "it is half a second, and then Python's own end; nobody ever reads the pipe"


def test_the_demo_without_privileges_tells_the_torn_copy_from_the_good_one(tmp_path: Path) -> None:
    """As an ordinary user would: no loop devices, a volume that the program serves itself."""
    shown = subprocess.run(
        [sys.executable, "-m", "vsssnap", "demo"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": str(tmp_path)},  # so that none of the tools is found
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "naive copy: TORN" in shown.stdout
    assert "snapshot: clean" in shown.stdout


@pytest.mark.lab
def test_the_demo_on_a_real_file_system() -> None:
    shown = vsssnap("demo").stdout
    assert "provider reflink" in shown
    assert "naive copy: TORN" in shown
    assert "snapshot: clean" in shown


@pytest.mark.lab
def test_what_a_killed_demo_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    demo = [sys.executable, "-m", "vsssnap", "demo"]

    def left() -> list[str]:
        devices = subprocess.run(["losetup", "--list", "--raw"], capture_output=True, text=True, check=True)
        lines = [*Path("/proc/mounts").read_text().splitlines(), *devices.stdout.splitlines()]
        return [line for line in lines if str(tmp_path) in line]

    with subprocess.Popen(demo, env=environment, stdout=subprocess.DEVNULL) as process:
        until = time.monotonic() + 120
        while len(left()) < 4 and time.monotonic() < until:  # two devices, both mounted
            time.sleep(0.05)
        process.kill()
    assert len(left()) == 4
    (folder,) = tmp_path.iterdir()
    shown = subprocess.run(demo, env=environment, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert f"removed {folder}, which a demo that was killed had left" in shown.stdout
    assert not left()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [("formats",), ("info", "disk.vsnap", "--json"), ("convert", "disk.vsnap", "-", "--format", "raw")],
)
def test_a_reader_that_has_ended_is_told_by_the_exit_code(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "disk").write_bytes(mixed(8 << 20))
    vsssnap("save", tmp_path / "disk", tmp_path / "disk.vsnap", "--live")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "vsssnap", *arguments],
            cwd=tmp_path,
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writing)
    assert done.returncode == 141, done.stderr


# What a write into such a pipe is under Windows; once the standard output goes elsewhere all is well.
WINDOWS = """
import errno, io, os, stat, sys

class Output(io.FileIO):
    def write(self, data):
        if stat.S_ISFIFO(os.fstat(1).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return super().write(data)

sys.stdout = io.TextIOWrapper(io.BufferedWriter(Output(1, "w", closefd=False)))
from vsssnap.cli.app import run
run(sys.argv[1:])
"""


@pytest.mark.parametrize("arguments", [("formats",), ("formats", "--json"), ("--help",)])
def test_a_reader_that_has_ended_is_told_as_windows_tells_of_it(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-c", WINDOWS, *arguments], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs_are_no_failure(tmp_path: Path, closed: str) -> None:
    (tmp_path / "disk").write_bytes(mixed(1 << 20))
    command = f"{sys.executable} -m vsssnap save disk disk.vsnap --live {closed}"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0
    assert "ok" in vsssnap("verify", tmp_path / "disk.vsnap").stdout


def test_options_about_snapshots_do_not_go_with_an_image(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(mixed(1 << 20))
    vsssnap("save", tmp_path / "disk", tmp_path / "disk.vsnap", "--live")
    more = ("--partition", "1", "--require", "application")
    done = vsssnap("save", tmp_path / "disk.vsnap", tmp_path / "out.vsnap", *more, status=2)
    assert "an image as source does not go with --require" in done.stderr


@pytest.mark.parametrize(
    "arguments", [("formats",), ("info", "disk.vsnap"), ("verify", "disk.vsnap", "--json"), ("--help",)]
)
def test_a_full_standard_output_is_told(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "disk").write_bytes(mixed(1 << 20))
    vsssnap("save", tmp_path / "disk", tmp_path / "disk.vsnap", "--live")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vsssnap", *arguments],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 17, done.stderr
    if "--json" not in arguments:
        assert "vsssnap: the standard output cannot be written: No space left on device" in done.stderr
    assert "bug" not in done.stderr


def test_what_names_no_file_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"x" * 512)
    assert "'' is no path" in vsssnap("save", tmp_path / "disk", "", "--live", status=2).stderr
    said = vsssnap("save", tmp_path / "disk", tmp_path / "disk" / "a.vsnap", "--live", status=17).stderr
    assert "Not a directory" in said
    assert "what stands before its last part is a file; name a folder" in said
    said = vsssnap("save", tmp_path / "disk", "a.vsnap", "--live", "--rate-limit", "0", status=2).stderr
    assert "'--rate-limit': it is at least 1" in said


@pytest.fixture(params=["full", "closed", "stuck"])
def taking_nothing(request: pytest.FixtureRequest) -> Iterator[int]:
    """A descriptor that takes no byte: of a full disk, or of a pipe that nobody reads (any more)."""
    reading, descriptor = os.pipe()
    if request.param == "full":
        os.close(descriptor)
        descriptor = os.open("/dev/full", os.O_WRONLY)
    elif request.param == "closed":
        os.close(reading)
    else:
        os.set_blocking(descriptor, False)  # for whoever else has it, too
        with contextlib.suppress(BlockingIOError):
            while os.write(descriptor, bytes(4096)):
                pass
    yield descriptor
    os.close(descriptor)
    if request.param != "closed":
        os.close(reading)


def test_a_standard_error_that_takes_nothing_leaves_the_code_of_the_work(
    disk: Path, tmp_path: Path, taking_nothing: int
) -> None:
    program = [sys.executable, "-m", "vsssnap"]
    for arguments, status in (
        (["save", str(disk), str(tmp_path / "a.vsnap"), "--live", "-v"], 0),
        (["convert", str(disk), str(tmp_path / "b.vsnap"), "--progress", "json"], 0),
        (["info", str(tmp_path / "no.vsnap")], 18),
        (["verify"], 2),
    ):
        done = subprocess.run(
            [*program, *arguments], stdout=subprocess.DEVNULL, stderr=taking_nothing, check=False
        )
        assert done.returncode == status, arguments
    vsssnap("verify", tmp_path / "a.vsnap")
    vsssnap("verify", tmp_path / "b.vsnap")
