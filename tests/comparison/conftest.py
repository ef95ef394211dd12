"""A comparison on a tiny model that is finished, and small ones on the same model."""

import pytest

from mptune.comparison.bench import run_recipe
from mptune.comparison.loaded import Loaded
from mptune.comparison.recipe import recipe_model
from mptune.comparison.results import read_results
from support.recipes import loaded
from support.trained import trained_backbone


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished recipe: its folder, its tasks and its lines by method, task and seed."""
    folder = tmp_path_factory.mktemp("recipe")
    backbone = trained_backbone()
    backbone.model.save_pretrained(folder / "model")
    backbone.tokenizer.save_pretrained(folder / "model")
    recipe = loaded(folder)
    run_recipe(recipe)
    lines = {(line.method, line.task, line.seed): line for line in read_results(folder / "out")}
    return folder, recipe, lines


@pytest.fixture
def small(finished, tmp_path):
    """A recipe of few runs on the finished one's model, into a folder of its own."""
    _folder, recipe, _ = finished

    def made(name, **changes):
        values = {
            "methods": ["constant", "prompt-tuning", "lora", "mpt", "mpt-group"],
            "rates": {},
            "seeds": 1,
            **changes,
        }
        own = recipe_model().read({**recipe.recipe.model_dump(), "out": str(tmp_path / name), **values}, "test")
        return Loaded(own, recipe.sources, recipe.targets), tmp_path / name

    return made
