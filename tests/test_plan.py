"""A plan counts what a recipe would do, and reckons its hours from a measurement."""

import json

import pytest

from conftest import make_backbone, make_task
from mptune.bench import run_recipe
from mptune.plan import planned
from mptune.recipes import Loaded, Recipe

SETTINGS = {
    "name": "toy",
    "sources": ["mood", "speed"],
    "targets": ["colour", "sound"],
    "methods": ["constant", "zero-shot", "transfer", "from-sources", "lora", "prompt-tuning", "spot", "dept", "mpt",
                "mpt-group", "bare"],
    "variants": {"bare": {"of": "mpt", "distill": {"distill_weight": 0}}},
    "shots": [2],
    "seeds": 3,
    "budget": {"steps": 6, "batch_size": 4, "validate_every": 3},
    "teach": {"steps": 10, "prompt_length": 4},
    "distill": {"steps": 20},
    "rates": {"prompt-tuning": [0.1, 0.3]},
    "dept": {"prompt_length": 2, "rank": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    backbone = make_backbone("t5")
    backbone.model.save_pretrained(folder / "model")
    backbone.tokenizer.save_pretrained(folder / "model")
    tasks = [make_task(folder, name, good, bad) for name, good, bad in (
        ("mood", "good", "awful"), ("speed", "fast", "slow"), ("colour", "blue", "red"), ("sound", "cat", "dog"),
    )]  # fmt: skip
    values = {**SETTINGS, "out": str(folder / "out"), "backbone": {"name": str(folder / "model")}}
    return Loaded(Recipe.read(values, "test"), tuple(tasks[:2]), tuple(tasks[2:]), None)


@pytest.fixture(scope="module")
def plan(toy):
    return {cost.what: cost for cost in planned(toy).costs}


def test_runs_and_steps_are_counted(plan):
    assert {what: (cost.runs, cost.steps) for what, cost in plan.items()} == {
        "teachers": (2, 20),
        "source training": (1, 20),
        "source training, settings 2": (1, 20),
        "constant": (2, 0),
        "zero-shot": (2, 0),
        "transfer": (2, 0),
        "from:mood": (2, 0),
        "from:speed": (2, 0),
        "lora": (6, 36),
        "prompt-tuning": (10, 60),  # two rates are tried with the first seed of each target
        "spot": (6, 36),
        "dept": (6, 36),
        "mpt": (6, 36),
        "mpt-group": (3, 36),  # twice the steps, for two tasks
        "bare": (6, 36),
    }


def test_tokens_are_those_of_the_batches_with_their_prompts(toy, plan):
    per_step = plan["lora"].tokens / plan["lora"].steps  # four rows, no prompt
    assert plan["spot"].tokens / plan["spot"].steps == pytest.approx(per_step + 4 * 4)
    assert plan["dept"].tokens / plan["dept"].steps == pytest.approx(per_step + 4 * 2)


def test_training_takes_time_and_a_constant_none(plan):
    assert plan["constant"].hours == 0
    assert all(cost.hours > 0 for what, cost in plan.items() if what != "constant")
    assert plan["lora"].hours > plan["zero-shot"].hours


def test_what_is_finished_is_not_planned_again(toy, tmp_path):
    run_recipe(toy, tmp_path / "out", only=["constant", "lora", "sound"])
    left = {cost.what: cost.runs for cost in planned(toy, tmp_path / "out", only=["constant", "lora"]).costs}
    assert left == {"constant": 1, "lora": 3}


def test_nothing_is_left_behind(toy, plan):
    from pathlib import Path

    assert not Path(toy.recipe.out).exists()


def test_epochs_and_all_examples_are_counted_as_steps(toy):
    values = json.loads(toy.recipe.model_dump_json())
    values |= {"methods": ["lora"], "shots": ["all"], "seeds": 1, "lora": {"epochs": 2, "batch_size": 5}, "budget": {}}
    whole = Loaded(Recipe.read(values, "test"), toy.sources, toy.targets, None)
    (cost,) = planned(whole).costs
    assert (cost.runs, cost.steps) == (2, 2 * 20)  # 48 rows twice, in batches of five


def test_a_plan_is_said_in_a_table_and_a_sentence(toy):
    found = planned(toy, only=["lora", "sound"])
    head, rows = found.table()
    assert head == ["what", "runs", "steps", "million tokens", "hours"]
    assert [row[:3] for row in rows] == [["lora", "3", "18"], ["all", "3", "18"]]
    assert "hours on this machine" in found.summary()
    assert 0.05 < found.memory < 64
    assert found.disk == pytest.approx(4, abs=0.01)  # what the teachers' outputs may take
