"""What the clients talk to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.harness import Room


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """`mlx-serving up`, as a newcomer would start it."""
    room = Room(tmp_path_factory.mktemp("up"))
    try:
        room.up("--quiet")
        room.ready()
        yield room
    finally:
        room.close()
