"""Methods that learn from rows without labels: side by side in a comparison, planned, refused where there are none."""

import json
from dataclasses import replace

import pytest

from mptune.comparison.bench import run_recipe
from mptune.comparison.loaded import Loaded
from mptune.comparison.plan import planned
from mptune.comparison.recipe import recipe_model
from mptune.comparison.results import read_results
from mptune.errors import ConfigError
from mptune.stages import ensemble
from support.models import make_backbone, saved
from support.toys import make_task, task_yaml, toy_rows, write_rows

pytestmark = pytest.mark.slow

SETTINGS = {
    "name": "toy",
    "sources": ["mood", "speed"],
    "targets": ["colour"],
    "methods": ["mpt", "mpt-labels", "taught-fine-tuning", "fine-tuning"],
    "variants": {"mpt-labels": {"of": "mpt", "adapt": {"unlabelled_rows": 0}}},
    "shots": [2],
    "seeds": 1,
    "budget": {"steps": 4, "batch_size": 4},
    "teach": {"steps": 3, "prompt_length": 4},
    "distill": {"steps": 4},
    "adapt": {"unlabelled_steps": 6},
    "evaluate": {"rows": 10},
}


@pytest.fixture
def toy(tmp_path):
    saved(make_backbone("t5"), tmp_path / "model")
    write_rows(tmp_path / "plain.jsonl", [{"text": row["text"]} for row in toy_rows("blue", "red", 30, start=300)])
    words = {"mood": ("good", "bad"), "speed": ("fast", "slow"), "colour": ("blue", "red")}
    tasks = [make_task(tmp_path, name, good, bad) for name, (good, bad) in words.items()]
    named = tasks[2].dataset.model_copy(update={"unlabelled": str(tmp_path / "plain.jsonl")})
    tasks[2] = tasks[2].model_copy(update={"dataset": named})
    values = {**SETTINGS, "out": str(tmp_path / "out"), "backbone": {"name": str(tmp_path / "model")}}
    return Loaded.of(recipe_model().read(values, "test"), tasks[:2], tasks[2:])


def test_mpt_and_a_taught_copy_learn_from_the_same_answers_and_a_variant_from_labels_alone(toy, monkeypatch):
    asked, ask = [], ensemble.PseudoLabels.of_teachers

    def noted(teachers, rows, sharpening):
        asked.append((len(teachers), len(rows.inputs)))
        return ask(teachers, rows, sharpening)

    monkeypatch.setattr(ensemble.PseudoLabels, "of_teachers", noted)
    lines = {line.method: line for line in read_results(run_recipe(toy))}
    assert asked == [(3, 30), (3, 30)]
    steps = {name: line.trainings[-1].config["steps"] for name, line in lines.items()}
    assert steps == {"mpt": 6, "mpt-labels": 4, "taught-fine-tuning": 6, "fine-tuning": 4}
    kept = {name: line.parameters.stored for name, line in lines.items()}
    assert kept["mpt"] == kept["mpt-labels"] < kept["taught-fine-tuning"] == kept["fine-tuning"]


def test_a_plan_measures_teachers_and_students_without_training_them_whole(toy, monkeypatch):
    taken, begin = [], ensemble.Training.__init__
    monkeypatch.setattr(
        ensemble.Training, "__init__",
        lambda self, learners, *given, **named: (taken.append(learners[0].config.steps),
                                                 begin(self, learners, *given, **named))[1],
    )  # fmt: skip
    long = toy.recipe.model_dump(mode="json") | {"adapt": {"steps": 1000, "unlabelled_steps": 2000}}
    costs = {cost.what: cost for cost in planned(replace(toy, recipe=recipe_model().read(long, "test"))).costs}
    assert max(taken) <= 20
    assert costs["mpt"].hours > 1.5 * costs["mpt-labels"].hours


def test_a_target_without_such_rows_is_refused_when_the_recipe_is_read(tmp_path):
    for name in ("mood", "speed", "colour"):
        task_yaml(tmp_path, name)
    values = {**SETTINGS, "out": "out", "sources": ["mood.yaml", "speed.yaml"], "targets": ["colour.yaml"]}
    (tmp_path / "toy.yaml").write_text(json.dumps(values))
    told = "taught-fine-tuning learns from rows without labels, and colour names none; add dataset: unlabelled:"
    with pytest.raises(ConfigError, match=told):
        Loaded.from_file(tmp_path / "toy.yaml")
