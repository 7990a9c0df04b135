"""Fixtures of the black-box tests: rooms of real processes, torn down whatever happens, and figures that are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pytest

from cluster.group import Group
from cluster.harness import Room


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """A coordinator's and some agents' home folders; nothing runs yet."""
    made = Room(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    """The same for a room with several coordinators."""
    made = Group(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Says a measured figure at the end of the run, whether the output of tests is shown or not."""
    # With the report of its test, which comes back from whichever process ran it.
    return lambda line: request.node.user_properties.append(("figure", line))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in chain.from_iterable(terminalreporter.stats.values()):
        if getattr(report, "when", None) == "call":
            for name, line in report.user_properties:
                if name == "figure":
                    terminalreporter.write_line(f"figure: {line}")
