"""A comparison on a tiny model: what each line of its results claims is what stands in its folders."""

import json
import re
from pathlib import Path

import pytest
import torch

from mptune.answers.evaluation import evaluate
from mptune.comparison import systems
from mptune.comparison.bench import _describe, run_recipe
from mptune.comparison.loaded import Loaded
from mptune.comparison.methods import METHODS
from mptune.comparison.results import Parameters, read_results
from mptune.comparison.trials import chosen_trials
from mptune.config import EvaluateConfig
from mptune.errors import DataError
from mptune.model.loading import load_backbone
from mptune.prompts.prompt import MultitaskPrompt
from support.recipes import loaded
from support.trained import trained_backbone

pytestmark = pytest.mark.slow  # a comparison of every method, with a sentence encoder among them


def prompt_of(folder, method, cell):
    return MultitaskPrompt.from_pretrained(folder / "out" / "targets" / method / cell)


ONCE = ("constant", "zero-shot", "transfer", "from:mood", "from:speed")
UNTRAINED = ("constant", "zero-shot", "transfer", "from-sources", "teacher")
TRAINED = (*(m for m, row in METHODS.items() if m not in UNTRAINED and not row.wants_unlabelled), "alone")


def test_every_method_runs_on_every_target_and_those_with_examples_with_every_seed(finished):
    _, _, lines = finished
    targets = ("colour", "sound")
    once = {(method, task, 0) for method in ONCE for task in targets}
    assert set(lines) == once | {(method, task, seed) for method in TRAINED for task in targets for seed in (0, 1)}
    assert {line.shots for line in lines.values() if line.method in ONCE} == {0}


def test_teachers_are_scored_on_targets_that_are_source_tasks_too(finished):
    _folder, recipe, _ = finished
    values = {"targets": ["speed", "colour"], "methods": ["teacher"]}
    both = Loaded(recipe.recipe.model_copy(update=values), recipe.sources, (recipe.sources[1], recipe.targets[0]))
    assert [trial.tasks for trial in chosen_trials(both)] == [("speed",)]


def test_the_page_says_how_long_the_prompts_are_that_are_compared(finished):
    _, made, _ = finished
    seven = made.recipe.section("prompt_tuning").model_copy(update={"prompt_length": 7})
    own = {"prompt_tuning": seven}
    alone = made.recipe.model_copy(update={**own, "sources": ()})
    lengths = [re.search(r"Prompt length (\d+);", "\n".join(_describe(each)))[1] for each in (
        Loaded(made.recipe.model_copy(update=own), made.sources, made.targets), Loaded(alone, (), made.targets)
    )]  # fmt: skip
    assert lengths == [str(made.recipe.teach.prompt_length), "7"]


def test_runs_of_the_first_seed_come_first(finished):
    folder, _, _ = finished
    seeds = [line.seed for line in read_results(folder / "out")]
    assert seeds == sorted(seeds)


def test_a_variant_differs_in_its_own_settings_alone(finished):
    folder, _, _ = finished
    (other,) = (p for p in (folder / "out").glob("multitask-*") if p.is_dir())
    with_it, without = (MultitaskPrompt.from_pretrained(p) for p in (folder / "out" / "multitask", other))
    assert with_it.card.config["distill_weight"] == 0.9
    assert without.card.config == {**with_it.card.config, "distill_weight": 0.0}
    for method, source in (("mpt", with_it), ("alone", without)):
        prompt = prompt_of(folder, method, "colour-2-0")  # of no steps, from the vectors of the second source task
        assert torch.equal(prompt.shared, source.shared)
        assert torch.equal(prompt.task_vectors.u, source.task_vectors.u[1:])
    assert not torch.equal(with_it.shared, without.shared)


def test_seeds_and_shots_of_a_line_are_those_of_its_prompt(finished):
    folder, _, lines = finished
    rows = []
    for seed in (0, 1):
        lr = lines["prompt-tuning", "sound", seed].lr
        for method, cell in (("mpt", f"sound-2-{seed}"), ("prompt-tuning", f"sound-2-{seed}-{lr:g}")):
            seeds = prompt_of(folder, method, cell).card.seeds
            assert seeds["seed"] == seed
            rows.append(seeds["shot_rows"]["sound"])
    assert rows[0] == rows[1] != rows[2] == rows[3]  # both methods learn from the same examples
    assert {len(r) for r in rows} == {4}


def test_every_method_answers_the_same_test_rows(finished):
    _, recipe, lines = finished
    for task in recipe.targets:
        own = [line for line in lines.values() if line.task == task.name]
        assert len({line.test_rows for line in own}) == 1
        assert {len(line.credit) for line in own} == {15}


def test_the_credits_of_a_line_add_up_to_its_accuracy(finished):
    _, _, lines = finished
    for line in lines.values():
        assert 100 * sum(line.credit) / 15 == pytest.approx(line.scores[0].value)


def test_a_line_tells_what_was_trained_and_what_a_task_must_store(finished):
    _folder, recipe, lines = finished
    width = load_backbone(recipe.recipe.backbone).width
    assert lines["mpt", "colour", 0].parameters == Parameters(
        trained=4 * width + 4 + width, stored=4 * width + 4 + width
    )
    group = 4 * width + 2 * (4 + width)
    assert lines["mpt-group", "colour", 0].parameters == Parameters(trained=group, stored=group // 2)
    assert lines["transfer", "colour", 0].parameters == Parameters(trained=0, stored=0)
    assert lines["multitask-fine-tuning", "sound", 1].parameters.stored * 2 == sum(
        p.numel() for p in load_backbone(recipe.recipe.backbone).model.parameters()
    )


def test_a_line_holds_the_curve_of_its_training(finished):
    _, _, lines = finished
    for method in ("prompt-tuning", "lora", "attempt"):
        curve = lines[method, "colour", 1].curve
        assert [point.step for point in curve if point.validation is not None] == [0, 3, 6], method
        assert [point.step for point in curve if point.loss is not None] == [3, 6], method


def test_a_line_holds_the_settings_and_rows_of_everything_that_was_trained_for_it(finished):
    folder, recipe, lines = finished
    line = lines["alone", "sound", 1]
    (multitask,) = (p for p in (folder / "out").glob("multitask-*") if p.is_dir())
    teachers = [MultitaskPrompt.from_pretrained(folder / "out" / "teachers" / name).card for name in ("mood", "speed")]
    source = MultitaskPrompt.from_pretrained(multitask).card
    target = prompt_of(folder, "alone", "sound-2-1").card
    assert [(t.stage, t.config) for t in line.trainings] == [
        ("teacher", teachers[0].config), ("source", source.config), ("target", target.config),
    ]  # fmt: skip
    assert [t.data for t in line.trainings] == [teachers[0].data | teachers[1].data, source.data, target.data]
    assert line.trainings[2].shot_rows == target.seeds["shot_rows"] != {}
    assert line.trainings[1].shot_rows == {}
    assert line.evaluate["rows"] == 15
    backbone = load_backbone(recipe.recipe.backbone)
    assert line.backbone == {"name": "./model", "revision": None, "fingerprint": backbone.fingerprint}


STAGES_OF = {
    "zero-shot": [], "transfer": ["teacher", "source"], "from:mood": ["teacher", "source"],
    "prompt-tuning": ["teacher"], "spot": ["teacher", "target"],
    "spot-closest": ["teacher", "teacher", "target"], "attempt": ["teacher", "attempt"], "dept": ["dept"],
    "mpt-group": ["teacher", "source", "target"], "lora": ["lora"], "multitask-fine-tuning": ["fine-tuning"],
}  # fmt: skip


@pytest.mark.parametrize("method", STAGES_OF)
def test_a_line_names_what_its_method_trained(finished, method):
    _, _, lines = finished
    line = lines[method, "sound", 0]
    assert [t.stage for t in line.trainings] == STAGES_OF[method]
    drawn = [t.shot_rows["sound"] for t in line.trainings if t.shot_rows]
    assert [len(rows) for rows in drawn] == [4] * {**dict.fromkeys(ONCE, 0), "spot-closest": 2}.get(method, 1)


def test_unadapted_prompts_are_scored_from_every_source_training(small):
    recipe, folder = small("luck", methods=["transfer", "from-sources", "mpt"], seeds=3, source_seeds=2)
    run_recipe(recipe)
    lines = {(line.method, line.task, line.seed): line for line in read_results(folder)}
    assert sorted({(method, seed) for method, _, seed in lines}) == [
        (method, seed) for method, seeds in (("from:mood", 2), ("from:speed", 2), ("mpt", 3), ("transfer", 2))
        for seed in range(seeds)
    ]  # fmt: skip
    for method in ("transfer", "from:mood", "mpt"):
        settings = [lines[method, "colour", seed].trainings[1].config["seed"] for seed in (0, 1)]
        assert settings == [0, 1], method


def test_what_runs_began_with_is_kept_with_its_scores_on_source_tasks(finished):
    folder, _, _ = finished
    found = {
        line["name"]: line for line in map(json.loads, (folder / "out" / "sources.jsonl").read_text().splitlines())
    }
    (other,) = (p.name for p in (folder / "out").glob("multitask-*") if p.is_dir())
    assert list(found) == ["teachers/mood", "teachers/speed", "multitask", other]
    for name, line in found.items():
        card = MultitaskPrompt.from_pretrained(folder / "out" / name).card
        assert (line["stage"], line["config"], line["scores"]) == (card.stage, card.config, list(card.scores))
    assert found["multitask"]["tasks"] == ["mood", "speed"]
    assert [(s["task"], s["split"], s["examples"]) for s in found["multitask"]["scores"]] == [
        ("mood", "validation", 16), ("speed", "validation", 16),
    ]  # fmt: skip


def test_cosines_of_all_tasks_are_kept(finished):
    folder, _, _ = finished
    found = json.loads((folder / "out" / "similarity.json").read_text())
    assert [(t["name"], t["role"]) for t in found["tasks"]] == [
        ("mood", "source"), ("speed", "source"), ("colour", "target"), ("sound", "target"),
    ]  # fmt: skip
    source, target = (
        MultitaskPrompt.from_pretrained(folder / "out" / "multitask"),
        prompt_of(folder, "mpt", "sound-2-0"),
    )
    for name, mood, sound in (
        ("prompts", source.collapse()[0], target.collapse()[0]),
        ("matrices", source.task_vectors.matrices[0], target.task_vectors.matrices[0]),
    ):
        cosine = float(torch.cosine_similarity(mood.flatten(), sound.flatten(), dim=0))
        assert found[name][0][3] == pytest.approx(cosine, abs=1e-3)


def test_a_line_says_what_its_prompt_scores_on_the_test_split(finished):
    folder, recipe, lines = finished
    backbone, task = load_backbone(recipe.recipe.backbone), recipe.targets[1].task
    judged = task.model_copy(update={"metrics": ("accuracy", "f1_macro")})
    lr = lines["prompt-tuning", "sound", 0].lr
    for method, seed, cell in (("mpt", 1, "sound-2-1"), ("prompt-tuning", 0, f"sound-2-0-{lr:g}")):
        prompt = prompt_of(folder, method, cell)
        scores = evaluate(prompt, judged, backbone, split="test", config=EvaluateConfig(rows=15))
        assert lines[method, "sound", seed].scores == tuple(scores)
    bare = evaluate(None, judged, backbone, split="test", config=EvaluateConfig(rows=15))
    assert lines["zero-shot", "sound", 0].scores == tuple(bare)


def test_the_constant_answers_the_same_test_rows(finished):
    _, _, lines = finished
    line = lines["constant", "colour", 0]
    assert line.answer in ("no", "yes")
    assert [(s.metric, s.examples) for s in line.scores] == [("accuracy", 15), ("f1_macro", 15)]
    assert line.scores[1].value < line.scores[0].value  # one answer of two is never said


def test_the_learning_rate_is_the_best_on_validation_rows_with_the_first_seed(finished):
    folder, recipe, lines = finished
    backbone = load_backbone(recipe.recipe.backbone)
    told_apart = 0
    for task in recipe.targets:
        scores = {}
        for lr in (0.01, 2.0):
            prompt = prompt_of(folder, "prompt-tuning", f"{task.name}-2-0-{lr:g}")
            assert (prompt.card.config["lr"], prompt.card.seeds["seed"]) == (lr, 0)
            (first, *_) = evaluate(prompt, task, backbone, split="validation", config=EvaluateConfig(rows=12))
            assert first.examples == 12
            scores[lr] = first.value
        told_apart += len(set(scores.values())) - 1
        for seed in (0, 1):
            chosen = lines["prompt-tuning", task.name, seed].lr
            assert scores[chosen] == max(scores.values())
            assert prompt_of(folder, "prompt-tuning", f"{task.name}-2-{seed}-{chosen:g}").card.config["lr"] == chosen
    assert told_apart  # where all rates tie, any of them would be the best


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
    for file in ("sound.test.jsonl", "mood.validation.jsonl"):
        (tmp_path / file).write_text('{"text": "a", "label": 7}\n')
    monkeypatch.setattr(systems, "load_backbone", lambda config: pytest.fail("the backbone was loaded"))
    with pytest.raises(
        DataError, match=r"(?s)task 'mood, sound'.*mood\.validation\.jsonl row 1.*sound\.test\.jsonl row 1"
    ):
        run_recipe(recipe)
    assert not (tmp_path / "out" / "teachers").exists()


def test_the_folder_of_a_recipe_may_be_named_from_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(systems, "load_backbone", lambda config: trained_backbone())
    run_recipe(loaded(tmp_path, out="~/here", methods=["constant"], variants={}, rates={}))
    assert (tmp_path / "here" / "results.jsonl").is_file()
    assert not Path("~").exists()
