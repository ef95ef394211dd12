"""A recipe on a tiny model: what each of its lines claims is what stands in its folders."""

import json
import shutil
import subprocess

import pytest
import torch

from conftest import make_task
from mptune import recipes
from mptune.artifacts import MultitaskPrompt
from mptune.backbone import load_backbone
from mptune.config import EvaluateConfig
from mptune.errors import DataError
from mptune.evaluation import evaluate
from mptune.prompts import mean_of_vectors
from mptune.recipes import Loaded, Recipe, commit, read_results, run_recipe
from trained import trained_backbone

SETTINGS = {
    "name": "toy",
    "sources": ["mood", "speed"],
    "targets": ["colour", "sound"],
    "methods": ["constant", "zero-shot", "prompt-tuning", "transfer", "mpt-no-distillation", "mpt"],
    "shots": [2],
    "seeds": 2,
    "teach": {"steps": 3, "prompt_length": 4},
    "distill": {"steps": 24, "validate_every": 4},
    "adapt": {"steps": 0, "initialise": "speed"},
    "prompt_tuning": {"steps": 6, "prompt_length": 4, "lrs": [0.01, 2.0], "tuning_rows": 12},
    "evaluate": {"rows": 15},
}


def loaded(folder, **changes):
    tasks = [make_task(folder, name, good, bad) for name, good, bad in (
        ("mood", "good", "awful"), ("speed", "fast", "slow"), ("colour", "blue", "red"), ("sound", "cat", "dog"),
    )]  # fmt: skip
    backbone = {"name": str(folder / "model")}
    recipe = Recipe.read({**SETTINGS, "out": str(folder / "out"), "backbone": backbone, **changes}, "test")
    return Loaded(recipe, tuple(tasks[:2]), tuple(tasks[2:]), None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished recipe: its folder, its tasks and its lines by method, task and seed."""
    folder = tmp_path_factory.mktemp("recipe")
    backbone = trained_backbone()
    backbone.model.save_pretrained(folder / "model")
    backbone.tokenizer.save_pretrained(folder / "model")
    recipe = loaded(folder)
    run_recipe(recipe)
    lines = {(line["method"], line["task"], line["seed"]): line for line in read_results(folder / "out")}
    return folder, recipe, lines


def prompt_of(folder, method, cell):
    return MultitaskPrompt.from_pretrained(folder / "out" / "targets" / method / cell)


def test_every_method_runs_on_every_target_and_those_with_examples_with_every_seed(finished):
    _, _, lines = finished
    once = {(m, t, 0) for m in ("constant", "zero-shot", "transfer") for t in ("colour", "sound")}
    trained = ("prompt-tuning", "mpt-no-distillation", "mpt")
    assert set(lines) == once | {(m, t, s) for m in trained for t in ("colour", "sound") for s in (0, 1)}


def test_the_arm_without_distillation_differs_in_lambda_alone(finished):
    folder, _, _ = finished
    with_it, without = (
        MultitaskPrompt.from_pretrained(folder / "out" / n) for n in ("multitask", "multitask-no-distillation")
    )
    assert with_it.card.config["distill_weight"] == 0.9
    assert without.card.config == {**with_it.card.config, "distill_weight": 0.0}
    assert not torch.equal(with_it.shared, without.shared)


def test_each_arm_adapts_its_own_multitask_prompt(finished):
    folder, _, _ = finished
    for method, name in (("mpt", "multitask"), ("mpt-no-distillation", "multitask-no-distillation")):
        source = MultitaskPrompt.from_pretrained(folder / "out" / name)
        prompt = prompt_of(folder, method, "colour-2-0")  # of no steps, from the vectors of the second source task
        assert torch.equal(prompt.shared, source.shared)
        assert torch.equal(prompt.task_vectors.u, source.task_vectors.u[1:])


def test_transfer_is_the_mean_of_the_source_tasks_as_it_is(finished):
    folder, _, _ = finished
    source = MultitaskPrompt.from_pretrained(folder / "out" / "multitask")
    prompt, mean = prompt_of(folder, "transfer", "sound-0-0"), mean_of_vectors(source.task_vectors)
    assert torch.equal(prompt.shared, source.shared)
    assert torch.equal(prompt.task_vectors.u, mean.u)
    assert torch.equal(prompt.task_vectors.v, mean.v)


def test_seeds_and_shots_of_a_line_are_those_of_its_prompt(finished):
    folder, _, lines = finished
    rows = []
    for seed in (0, 1):
        lr = lines["prompt-tuning", "sound", seed]["lr"]
        for method, cell in (("mpt", f"sound-2-{seed}"), ("prompt-tuning", f"sound-2-{seed}-{lr:g}")):
            seeds = prompt_of(folder, method, cell).card.seeds
            assert seeds["seed"] == seed
            rows.append(seeds["shot_rows"]["sound"])
    assert rows[0] == rows[1] != rows[2] == rows[3]  # both methods learn from the same examples
    assert {len(r) for r in rows} == {4}


def test_a_line_says_what_its_prompt_scores_on_the_test_split(finished):
    folder, recipe, lines = finished
    backbone, task = load_backbone(recipe.recipe.backbone), recipe.targets[1]
    judged = task.model_copy(update={"metrics": ("accuracy", "f1_macro")})
    lr = lines["prompt-tuning", "sound", 0]["lr"]
    for method, seed, cell in (("mpt", 1, "sound-2-1"), ("prompt-tuning", 0, f"sound-2-0-{lr:g}")):
        prompt = prompt_of(folder, method, cell)
        scores = evaluate(prompt, judged, backbone, split="test", config=EvaluateConfig(rows=15))
        assert lines[method, "sound", seed]["scores"] == [s.as_dict() for s in scores]
    bare = evaluate(None, judged, backbone, split="test", config=EvaluateConfig(rows=15))
    assert lines["zero-shot", "sound", 0]["scores"] == [s.as_dict() for s in bare]


def test_the_constant_answers_the_same_test_rows(finished):
    _, _, lines = finished
    line = lines["constant", "colour", 0]
    assert line["answer"] in ("no", "yes")
    assert [(s["metric"], s["examples"]) for s in line["scores"]] == [("accuracy", 15), ("f1_macro", 15)]
    assert line["scores"][1]["value"] < line["scores"][0]["value"]  # one answer of two is never said


def test_the_learning_rate_is_the_best_on_validation_rows_with_the_first_seed(finished):
    folder, recipe, lines = finished
    backbone = load_backbone(recipe.recipe.backbone)
    for task in recipe.targets:
        scores = {}
        for lr in (0.01, 2.0):
            prompt = prompt_of(folder, "prompt-tuning", f"{task.name}-2-0-{lr:g}")
            assert (prompt.card.config["lr"], prompt.card.seeds["seed"]) == (lr, 0)
            (first, *_) = evaluate(prompt, task, backbone, split="validation", config=EvaluateConfig(rows=12))
            assert first.examples == 12
            scores[lr] = first.value
        for seed in (0, 1):
            chosen = lines["prompt-tuning", task.name, seed]["lr"]
            assert scores[chosen] == max(scores.values())
            assert prompt_of(folder, "prompt-tuning", f"{task.name}-2-{seed}-{chosen:g}").card.config["lr"] == chosen


def test_a_line_cut_by_a_kill_is_done_again_and_the_others_are_not(finished):
    folder, recipe, _ = finished
    file = folder / "out" / "results.jsonl"
    whole = file.read_text()
    *kept, last = whole.splitlines(keepends=True)
    file.write_text("".join(kept) + last[: len(last) // 2])
    run_recipe(recipe)
    *same, again = file.read_text().splitlines(keepends=True)
    assert same == kept
    untimed = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in (again, last)]
    assert untimed[0] == untimed[1]


def test_every_problem_of_the_data_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    recipe = loaded(tmp_path)
    (tmp_path / "sound.test.jsonl").write_text('{"text": "a", "label": 7}\n')
    monkeypatch.setattr(recipes, "load_backbone", lambda config: pytest.fail("the backbone was loaded"))
    with pytest.raises(DataError, match="7"):
        run_recipe(recipe)
    assert not (tmp_path / "out" / "teachers").exists()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_that_of_a_checkout_which_holds_the_code(tmp_path, monkeypatch):
    def git(*words):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        done = subprocess.run(["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    code = tmp_path / "recipes.py"
    code.write_text("one")
    monkeypatch.setattr(recipes, "__file__", str(code))
    assert commit() is None  # no checkout
    git("init", "-q")
    (tmp_path / "other.txt").write_text("other")
    git("add", "other.txt")
    git("commit", "-qm", "other")
    assert commit() is None  # somebody else's: it does not hold the code
    git("add", "recipes.py")
    git("commit", "-qm", "one")
    head = git("rev-parse", "HEAD")
    assert commit() == head[:12]
    code.write_text("two")
    assert commit() == f"{head[:12]}-dirty"
