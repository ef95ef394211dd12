"""A plan counts what a recipe would do, and reckons its hours from a measurement."""

import json
from dataclasses import replace

import pytest

from mptune.comparison import plan as plan_module
from mptune.comparison.bench import run_recipe
from mptune.comparison.loaded import Loaded
from mptune.comparison.plan import Cost, Pace, Texts, planned, training_cost
from mptune.comparison.recipe import recipe_model
from mptune.config import TrainingConfig
from mptune.errors import DataError
from mptune.tasks.registry import get_tasks
from support.models import make_backbone
from support.toys import make_task

pytestmark = pytest.mark.slow  # measures every method

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
    return Loaded.of(recipe_model().read(values, "test"), tasks[:2], tasks[2:])


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
        "prompt-tuning": (8, 48),  # two rates are tried with the first seed of each target, and the better is its run
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


@pytest.mark.slow
def test_what_is_finished_is_not_planned_again(toy, tmp_path):
    run_recipe(toy, tmp_path / "out", only=["constant", "lora", "sound"])
    left = {cost.what: cost.runs for cost in planned(toy, tmp_path / "out", only=["constant", "lora"]).costs}
    assert left == {"constant": 1, "lora": 3}


@pytest.mark.slow
def test_teachers_and_source_trainings_that_are_made_are_not_planned_again(toy, tmp_path):
    run_recipe(toy, tmp_path / "out", only=["spot", "sound"])
    taught = planned(toy, tmp_path / "out", only=["mpt", "colour"])
    assert [(cost.what, cost.runs) for cost in taught.costs] == [("source training", 1), ("mpt", 3)]
    run_recipe(toy, tmp_path / "out", only=["mpt", "sound"])
    made = planned(toy, tmp_path / "out", only=["mpt", "colour"])
    assert [(cost.what, cost.runs) for cost in made.costs] == [("mpt", 3)]
    assert made.disk < 0.01 < 4 < taught.disk  # teachers' outputs are kept while a source training lasts


def test_every_source_seed_has_a_source_training(toy):
    values = json.loads(toy.recipe.model_dump_json()) | {"source_seeds": 2}
    several = Loaded(recipe_model().read(values, "test"), toy.sources, toy.targets)
    runs = {cost.what: cost.runs for cost in planned(several, only=["transfer", "mpt"]).costs}
    assert runs == {"teachers": 2, "source training": 2, "transfer": 4, "mpt": 6}


PACE = Pace(step=8.0, size=16, row=0.5, tokens=30.0, length=10)
TEXTS = Texts(tokens=20.0, train=100, validation=12, test=50, classes=2)


def hours(tasks=1, pace=PACE, **fields):
    config = TrainingConfig(**{"steps": 10, "batch_size": 16, "validation_shots": 0, **fields})
    return 3600 * training_cost(config, [TEXTS] * tasks, pace).hours


def test_a_finished_comparison_costs_nothing(toy, tmp_path):
    run_recipe(toy, tmp_path / "out", only=["constant"])
    assert planned(toy, tmp_path / "out", only=["constant"]).costs == ()


def test_a_step_costs_what_its_tokens_cost():
    assert hours() == pytest.approx(10 * 8)
    assert hours(batch_size=32) == pytest.approx(10 * 16)  # measured on half of its rows
    assert hours(batch_size=32, shots=4) == pytest.approx(10 * 4)  # eight rows are all there are
    assert hours(pace=replace(PACE, tokens=60.0)) == pytest.approx(10 * 4)  # measured on texts twice as long


def test_validations_are_those_of_the_loop_on_the_rows_that_there_are():
    every = {"validation_shots": None, "validate_every": 4}  # at the start, after 4, 8 and 10 steps
    assert hours(**every) - hours() == pytest.approx(4 * 12 * 0.5)  # 200 rows are wanted, 12 are there
    assert hours(**every, steps=8) - hours(steps=8) == pytest.approx(3 * 12 * 0.5)  # the last is one of them
    assert hours(**every, shots=3) == hours(shots=3)  # few-shot trainings hold nothing out
    some = {**every, "validation_shots": 3}
    assert hours(**some, shots=3) - hours(shots=3) == pytest.approx(4 * 6 * 0.5)
    assert hours(validation_shots=3, validate_every=4) == hours(**every)  # without shots, all training rows are taken
    assert hours(**every, tasks=2) - hours(tasks=2) == pytest.approx(4 * 24 * 0.5)


def test_a_group_validates_as_often_as_a_run_of_its_own(toy, monkeypatch):
    asked = []
    monkeypatch.setattr(plan_module, "training_cost", lambda config, *_: asked.append(config) or Cost("", 1, 0, 0, 0))
    planned(toy, only=["mpt-group"])
    group = asked[-1]
    assert (group.steps, group.validate_every) == (12, 6)


def test_the_closest_source_is_found_by_a_training_of_its_own(toy):
    values = json.loads(toy.recipe.model_dump_json()) | {"methods": ["spot", "spot-closest"]}
    both = Loaded(recipe_model().read(values, "test"), toy.sources, toy.targets)
    found = {cost.what: cost for cost in planned(both).costs}
    assert found["spot-closest"].steps == 2 * found["spot"].steps
    assert found["spot-closest"].tokens == 2 * found["spot"].tokens


def test_a_disk_must_hold_the_state_of_an_unfinished_run(toy):
    whole = planned(toy, only=["lora", "sound"]).disk
    values = json.loads(toy.recipe.model_dump_json()) | {"methods": ["fine-tuning"]}
    fine = planned(Loaded(recipe_model().read(values, "test"), toy.sources, toy.targets), only=["sound"]).disk
    numbers = sum(p.numel() for p in make_backbone("t5").model.parameters())
    prompts = 3 * 4 * 16 * 4 / 2**30
    assert fine == pytest.approx(
        2 * 4 * 4 * numbers / 2**30 + prompts, rel=1e-3
    )  # the old one and the new, for a moment
    assert whole < fine / 2


def test_nothing_is_left_behind(toy, plan):
    from pathlib import Path

    assert not Path(toy.recipe.out).exists()


def test_epochs_and_all_examples_are_counted_as_steps(toy):
    values = json.loads(toy.recipe.model_dump_json())
    values |= {"methods": ["lora"], "shots": ["all"], "seeds": 1, "lora": {"epochs": 2, "batch_size": 5}, "budget": {}}
    whole = Loaded(recipe_model().read(values, "test"), toy.sources, toy.targets)
    (cost,) = planned(whole).costs
    assert (cost.runs, cost.steps) == (2, 2 * 20)  # 48 rows twice, in batches of five


def test_a_plan_is_said_in_a_table_and_a_sentence(toy):
    found = planned(toy, only=["lora", "sound"])
    head, rows = found.table()
    assert head == ["what", "runs", "steps", "million tokens", "hours"]
    assert [row[:3] for row in rows] == [["lora", "3", "18"], ["all", "3", "18"]]
    assert "hours on this machine" in found.summary()
    assert 0.05 < found.memory < 64
    assert 0 < found.disk < 0.01


def test_without_a_row_at_hand_runs_and_steps_are_counted_by_what_is_published(tmp_path):
    recipe = {"name": "far", "out": str(tmp_path / "out"), "sources": ["mnli", "qnli"], "targets": ["rte", "cb"],
              "methods": ["constant", "mpt"], "shots": ["all"], "seeds": 3, "backbone": {"name": "nowhere/model"},
              "teach": {"epochs": 1, "batch_size": 32}, "distill": {"steps": 7},
              "adapt": {"epochs": 2, "batch_size": 32}}  # fmt: skip
    sources, targets = get_tasks(recipe["sources"]), get_tasks(recipe["targets"])
    loaded = Loaded.of(recipe_model().model_validate(recipe), sources, targets)
    expected = planned(loaded)
    assert [(c.what, c.runs, c.steps) for c in expected.costs] == [
        ("teachers", 2, 12_272 + 3_242), ("source training", 1, 7), ("constant", 2, 0), ("mpt", 6, 3 * (156 + 16)),
    ]  # fmt: skip
    head, rows = expected.table()
    assert head == ["what", "runs", "steps"]
    assert rows[-1] == ["all", "11", "16,037"]
    assert "not known here, for nyu-mll/glue/mnli/train cannot be loaded from the hub" in expected.summary()
    more = Loaded.of(loaded.recipe, sources, get_tasks(["e2e_nlg"]))  # of which no numbers are published
    with pytest.raises(DataError, match="e2e_nlg"):
        planned(more)
    (tmp_path / "mnli.train.jsonl").write_text('{"premise": "a", "hypothesis": "b", "label": 7}\n')
    with pytest.raises(DataError, match="the label 7 is not in the verbalizer"):  # wrong, and not only missing
        planned(Loaded.of(loaded.recipe, sources, targets, tmp_path))
