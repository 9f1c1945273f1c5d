"""Options, profiles and rules that hold for every test."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from requirements import labs_required

pytest_plugins = ["vsssnap.testing.plugin", "pytester"]  # the first finds itself where the wheel is installed

_TESTS = Path(__file__).resolve().parent
_SRC = _TESTS.parent / "src"

# Public behaviour by construction: these folders also run against the installed wheel.
_WHEEL_FOLDERS = ("contract",)

# "ci" runs the same examples every time: a change that turns it red is what broke it.
# "dev" looks for new ones; "long" looks hard.
_UNTIMED = [HealthCheck.too_slow]
settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=60,
    database=None,
    print_blob=True,
    suppress_health_check=_UNTIMED,
)
settings.register_profile(
    "dev", deadline=None, max_examples=60, print_blob=True, suppress_health_check=_UNTIMED
)
settings.register_profile(
    "long",
    deadline=None,
    max_examples=5000,
    stateful_step_count=200,
    print_blob=True,
    suppress_health_check=_UNTIMED,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="also run tests marked long, with many more examples"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--long"):
        settings.load_profile("long")
    else:
        settings.load_profile("ci" if os.environ.get("CI") else "dev")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts what runs in its background with Ctrl-C ignored, and so would be the
        # programs that tests interrupt.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup(1)
    if _SRC.is_dir():
        # Programs that tests start see the same package as the tests do.
        inherited = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = str(_SRC) + (os.pathsep + inherited if inherited else "")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_TESTS) and item.path.relative_to(_TESTS).parts[0] in _WHEEL_FOLDERS:
            item.add_marker(pytest.mark.wheel)
        posix = item.get_closest_marker("posix")
        if posix is not None and sys.platform == "win32":
            item.add_marker(pytest.mark.skip(reason=posix.args[0]))
    if not config.getoption("--long"):
        late = [item for item in items if item.get_closest_marker("long")]
        if late:
            config.hook.pytest_deselected(items=late)
            items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where labs are required, a lab that skips itself has failed, however it did so."""
    report = yield
    if (
        report.skipped
        and labs_required()
        and item.get_closest_marker("lab")
        and not hasattr(report, "wasxfail")
    ):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and VSSSNAP_REQUIRE_LABS is set: {reason}"
    return report
