"""Every recipe that ships is complete: those of the paper take two steps of everything on a tiny random T5."""

from pathlib import Path

import pytest

from mptune.comparison.bench import run_recipe
from mptune.comparison.loaded import Loaded
from mptune.comparison.methods import target_sections
from mptune.comparison.plan import planned
from mptune.comparison.recipe import recipe_model
from mptune.comparison.results import read_results
from mptune.comparison.trials import chosen_trials
from support.models import make_backbone

RECIPES = Path(__file__).parents[2] / "recipes"
ROWS = Path(__file__).parents[1] / "rows"
ALL = [path for path in sorted(RECIPES.rglob("*.yaml")) if "targets:" in path.read_text()]  # others are tasks' files
PAPER = sorted((RECIPES / "paper").glob("*.yaml"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    backbone = make_backbone("t5")
    backbone.model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    return folder


def tiny(path, model, folder):
    """The recipe on a tiny model and written rows, with two steps of every training and its own everything else."""
    loaded = Loaded.from_file(path)
    values = loaded.recipe.model_dump(mode="json")
    lengths = {"max_input_tokens": 24, "max_target_tokens": 3}
    short = {"steps": 2, "epochs": None, "batch_size": 4, "validate_every": 2, "validation_rows": 2, **lengths}
    for section in ("teach", "distill", *target_sections()):
        values[section] |= {field: value for field, value in short.items() if field in values[section]}
    for fields in values["variants"].values():
        for section in set(fields) & {"teach", "distill", "backbone", *target_sections()}:
            fields[section] |= {"name": str(model)} if section == "backbone" else {}
            fields[section].pop("batch_size", None)
            fields[section] |= {"prompt_length": 5} if "prompt_length" in fields[section] else {}
    values["teach"]["prompt_length"] = values["prompt_tuning"]["prompt_length"] = 4
    values["dept"] |= {"prompt_length": 2, "rank": 2}
    values["attempt"] |= {"projection": 3}
    values["adapters"] |= {"reduction": 4}
    values["evaluate"] |= {"rows": 3, **lengths}
    values |= {
        "backbone": {"name": str(model)},
        "out": str(folder),
        "seeds": 1,
        "source_seeds": 1,
        "per_task": {},
        "budget": {},
        "shots": [2 if k != "all" else k for k in values["shots"][:1]],
    }
    sources, targets = ([rows.task for rows in tasks] for tasks in (loaded.sources, loaded.targets))
    return Loaded.of(recipe_model().read(values, path.name), sources, targets, ROWS)


def test_there_is_a_recipe_for_each_of_the_papers_questions():
    assert [path.stem for path in PAPER] == [
        "ablations", "fewshot", "glue", "group", "mrqa", "nlg", "others", "scaling", "superglue",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_a_recipe_of_the_paper_takes_two_steps_of_everything(path, model, tmp_path):
    loaded = tiny(path, model, tmp_path)
    run_recipe(loaded)
    lines = read_results(tmp_path)
    assert [(line.method, line.task) for line in lines] == [
        (trial.name, task) for trial in chosen_trials(loaded) for task in trial.tasks
    ]
    trained = [line for line in lines if line.parameters.trained and line.method != "teacher"]
    assert all(line.curve[-1].step >= 2 for line in trained)


@pytest.mark.slow
@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_a_recipe_of_the_paper_can_be_planned(path, model, tmp_path):
    loaded = tiny(path, model, tmp_path)
    plan = planned(loaded)
    runs = sum(cost.runs for cost in plan.costs if not cost.what.startswith(("teachers", "source training")))
    assert runs == len(chosen_trials(loaded))


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_papers_settings_are_in_its_recipes(path):
    recipe = Loaded.from_file(path).recipe
    assert all(name.endswith("@paper") for name in (*recipe.sources, *recipe.targets))
    assert [name.partition("@")[0] for name in recipe.sources] == ["mnli", "qnli", "qqp", "sst2", "squad", "record"]
    assert (recipe.teach.prompt_length, recipe.distill.distill_weight, recipe.distill.epochs) == (100, 0.9, 5)
    assert recipe.adapt.task_lr == 0.4
    assert recipe.distill.task_lr * 13.47 * recipe.distill.shared_lr == pytest.approx(0.3 * 0.3, rel=0.02)
    assert recipe.evaluate.scoring == "task"
    assert recipe.backbone.dtype == "float32"


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(RECIPES)))
def test_every_recipe_can_be_read(path):
    if "shared/data" in path.read_text() and not (RECIPES.parents[1] / "shared").is_dir():
        pytest.skip("the real rows beside the project are missing")
    Loaded.from_file(path)
