"""Fixtures: tiny models made once, and one runtime process for all tests that only look at answers."""

import os
from collections.abc import Callable, Generator
from pathlib import Path

# Before anything imports MLX: compiling kernels at run time takes seconds for each, and a test proves nothing with it.
os.environ["MLX_DISABLE_COMPILE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from hypothesis import settings

from agent import Agent, agent
from tiny_models import Recipe, make

# A busy machine is not a slow law.
settings.register_profile("any_machine", deadline=None, database=None)
settings.load_profile("any_machine")

MakeModel = Callable[[Recipe], Path]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """A model folder for a recipe, made once."""
    made: dict[Recipe, Path] = {}

    def get(recipe: Recipe) -> Path:
        if recipe not in made:
            made[recipe] = make(tmp_path_factory.mktemp("models") / recipe.arch, recipe)
        return made[recipe]

    return get


@pytest.fixture(scope="session")
def llama(model: MakeModel) -> Path:
    """The model of tests that need any."""
    return model(Recipe())


@pytest.fixture(scope="session")
def _shared(llama: Path) -> Generator[Agent]:
    with agent() as running:
        running.load(llama, prefill_chunk=48, max_rows=12)
        yield running


@pytest.fixture
def runtime(_shared: Agent) -> Agent:
    """A runtime with the llama loaded and nothing running; tests leave it like that."""
    assert _shared.ask("list") == {"rows": []}
    return _shared
