"""A small comparison of every method on toy tasks."""

from mptune.comparison.loaded import Loaded
from mptune.comparison.methods import METHODS
from mptune.comparison.recipe import recipe_model
from support.models import sentence_encoder
from support.toys import make_task

SETTINGS = {
    "name": "toy",
    "sources": ["mood", "speed"],
    "targets": ["colour", "sound"],
    "methods": [*(name for name, row in METHODS.items() if not row.wants_unlabelled), "alone"],
    "variants": {"alone": {"of": "mpt", "distill": {"distill_weight": 0.0}}},
    "shots": [2],
    "seeds": 2,
    "budget": {"steps": 6, "validate_every": 3, "validation_shots": 2},
    "teach": {"steps": 3, "prompt_length": 4},
    "distill": {"steps": 24, "validate_every": 4},
    "adapt": {"steps": 0, "initialise": "speed"},
    "prompt_tuning": {"prompt_length": 4},
    "attempt": {"projection": 3},
    "dept": {"prompt_length": 2, "rank": 2},
    "setfit": {"iterations": 1},
    "rates": {"prompt-tuning": [0.01, 2.0]},
    "tuning_rows": 12,
    "evaluate": {"rows": 15},
}


def loaded(folder, **changes):
    """The recipe with its tasks in a folder, whose model stands in ``model``."""
    tasks = [make_task(folder, name, good, bad) for name, good, bad in (
        ("mood", "good", "awful"), ("speed", "fast", "slow"), ("colour", "blue", "red"), ("sound", "cat", "dog"),
    )]  # fmt: skip
    values = {**SETTINGS, "out": str(folder / "out"), "backbone": {"name": str(folder / "model")}, **changes}
    if "setfit" in values["methods"]:
        values["setfit"] = {**values["setfit"], "encoder": str(sentence_encoder(folder / "encoder"))}
    recipe = recipe_model().read(values, "test")
    return Loaded.of(recipe, tasks[:2], tasks[2:])
