"""Fixtures of the black-box tests: rooms of real processes, torn down whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.harness import Room


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """A coordinator's and some agents' home folders; nothing runs yet."""
    made = Room(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for made-up models, shared by the session."""
    return tmp_path_factory.mktemp("models")
