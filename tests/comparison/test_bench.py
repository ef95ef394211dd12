"""A comparison on a tiny model: what each line of its results claims is what stands in its folders."""

import json
import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from mptune.answers import evaluation, metrics
from mptune.answers.evaluation import evaluate
from mptune.comparison import bench, systems
from mptune.comparison.bench import run_recipe
from mptune.comparison.methods import METHODS
from mptune.comparison.recipe import Loaded, recipe_model
from mptune.comparison.results import FILES, Parameters, read_results
from mptune.comparison.trials import chosen_trials
from mptune.config import Config, EvaluateConfig
from mptune.errors import DataError, MissingExtraError, ResumeError, UsageError
from mptune.model.loading import load_backbone
from mptune.prompts.prompt import MultitaskPrompt
from mptune.stages import training, weights
from mptune.tasks import data
from mptune.tasks.data import TaskRows
from mptune.tasks.task import SPLITS
from support.recipes import loaded
from support.trained import trained_backbone

pytestmark = pytest.mark.slow  # a comparison of every method, with a sentence encoder among them


@pytest.fixture(scope="module")
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


class Stop(Exception):
    pass


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


def timeless(folder):
    return [line.model_copy(update={"seconds": None}) for line in read_results(folder)]


def test_interrupted_three_times_the_results_are_those_of_one_run_through(small):
    whole, straight = small("whole")
    run_recipe(whole)
    halting, folder = small("halting")
    for runs in (2, 4, 3):
        seen = []

        def stop(standing, seen=seen, runs=runs):
            seen.append(standing)
            if len(seen) == runs:
                raise Stop

        with pytest.raises(Stop):
            run_recipe(halting, watch=stop)
    run_recipe(halting)
    assert timeless(folder) == timeless(straight)
    assert (folder / "results.md").read_text() == (straight / "results.md").read_text()


def test_a_run_that_is_killed_within_its_training_goes_on_there(small, monkeypatch):
    whole, straight = small("straight", methods=["lora"], lora={"steps": 6, "validate_every": 3, "save_every": 2})
    run_recipe(whole)
    killed, folder = small("killed", methods=["lora"], lora={"steps": 6, "validate_every": 3, "save_every": 2})
    save = training.Learner.save

    def once(learner):
        save(learner)
        monkeypatch.setattr(training.Learner, "save", save)
        raise Stop

    monkeypatch.setattr(training.Learner, "save", once)
    with pytest.raises(Stop):
        run_recipe(killed)
    assert (folder / "targets" / "lora" / "colour-2-0.partial" / "state.safetensors").is_file()
    run_recipe(killed)
    assert timeless(folder) == timeless(straight)


def test_a_finished_comparison_does_nothing_again(small, monkeypatch):
    recipe, folder = small("again")
    run_recipe(recipe)
    before = (folder / "results.jsonl").read_bytes()
    monkeypatch.setattr(bench, "_outcome", lambda *_: pytest.fail("a finished run was done again"))
    run_recipe(recipe)
    assert (folder / "results.jsonl").read_bytes() == before


def test_a_finished_comparison_reads_no_rows_and_loads_no_model(small, monkeypatch):
    recipe, folder = small("open", methods=["constant", "mpt"])
    run_recipe(recipe)
    before = {file: (folder / file).read_bytes() for file in FILES}
    (folder / "results.md").unlink()
    monkeypatch.setattr(data, "read_rows", lambda *_: pytest.fail("rows were read"))
    monkeypatch.setattr(systems, "load_backbone", lambda *_: pytest.fail("the model was loaded"))
    run_recipe(anew(recipe))
    assert {file: (folder / file).read_bytes() for file in FILES} == before


def test_only_the_rows_of_runs_that_are_to_come_are_read(small, monkeypatch):
    recipe, _ = small("part", methods=["constant", "zero-shot"])
    opened, read_rows = set(), data.read_rows
    monkeypatch.setattr(data, "read_rows", lambda task, *given: opened.add(task.name) or read_rows(task, *given))
    run_recipe(anew(recipe), only=["constant", "colour"])
    assert opened == {"colour"}  # neither the other target, nor what only distilled prompts need
    run_recipe(anew(recipe), only=["constant"])
    assert opened == {"colour", "sound"}


def test_a_library_that_a_method_needs_is_missed_before_anything_is_trained(small, monkeypatch):
    monkeypatch.setattr(TaskRows, "data", lambda *_: pytest.fail("the data were read"))
    monkeypatch.setitem(sys.modules, "peft", None)
    recipe, _ = small("nopeft", methods=["constant", "lora"])
    with pytest.raises(MissingExtraError, match=r"LoRA or \(IA\)³ needs more libraries"):
        run_recipe(recipe)
    monkeypatch.undo()
    run_recipe(recipe, only=["constant"])


def test_a_library_that_a_metric_needs_is_missed_before_anything_is_trained(small, monkeypatch):
    recipe, _ = small("nonlg", methods=["constant"])
    tale = TaskRows(recipe.targets[0].task.model_copy(update={"metrics": ("accuracy", "chrf")}))
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    monkeypatch.setattr(TaskRows, "data", lambda *_: pytest.fail("the data were read"))
    with pytest.raises(MissingExtraError, match=r"scoring written text \(bleu, chrf, .*mptune\[nlg\]"):
        run_recipe(replace(recipe, targets=(tale, recipe.targets[1])))
    monkeypatch.undo()
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    run_recipe(replace(recipe, targets=(tale, recipe.targets[1])), only=["sound"])


def test_only_restricts_to_methods_and_targets(small):
    recipe, folder = small("only")
    run_recipe(recipe, only=["lora", "constant", "sound"])
    assert [(line.method, line.task) for line in read_results(folder)] == [
        ("constant", "sound"),
        ("lora", "sound"),
    ]
    run_recipe(recipe)
    assert len(read_results(folder)) == 10


def test_only_names_what_the_recipe_has(small):
    recipe, _ = small("none")
    with pytest.raises(
        UsageError, match=r"got lore\. Its methods: constant, prompt-tuning, .* Its targets: colour, sound\."
    ):
        run_recipe(recipe, only=["lore"])


def test_other_settings_need_another_folder_and_more_methods_do_not(small):
    recipe, _folder = small("first", methods=["constant"])
    run_recipe(recipe)
    more, _ = small("first", methods=["constant", "zero-shot"], seeds=2)
    run_recipe(more)
    other, _ = small("first", methods=["constant"], lora={"steps": 7})
    with pytest.raises(ResumeError, match=r"holds results with lora\.steps = 6, and now it is 7"):
        run_recipe(other)


def test_another_target_is_welcome_but_in_a_group(small, finished):
    _, recipe, _ = finished

    def of(targets, methods):
        loaded, _ = small("growing", methods=methods)
        chosen = [task for task in recipe.targets if task.name in targets]
        return replace(
            loaded, recipe=loaded.recipe.model_copy(update={"targets": tuple(targets)}), targets=tuple(chosen)
        )

    run_recipe(of(["colour"], ["constant"]))
    run_recipe(of(["colour", "sound"], ["constant"]))
    run_recipe(of(["colour"], ["constant", "mpt-group"]))
    run_recipe(of(["colour", "sound"], ["constant"]))
    told = r"targets = colour, and now it is colour, sound \(mpt-group learns all of them at once\)"
    with pytest.raises(ResumeError, match=told):
        run_recipe(of(["colour", "sound"], ["constant", "mpt-group"]))


def anew(loaded):
    """The same as a new process reads it: no row of a task is read yet."""
    return Loaded.of(loaded.recipe, [rows.task for rows in loaded.sources], [rows.task for rows in loaded.targets])


@pytest.mark.parametrize("held_out", [2, 0])
def test_rows_that_changed_between_two_runs_are_refused_before_anything_is_trained(small, held_out):
    tuned = {"prompt_length": 4, "steps": 2, "validation_shots": held_out}
    few = {"methods": ["constant", "prompt-tuning"], "prompt_tuning": tuned}
    recipe, folder = small(f"rows-{held_out}", seeds=1, **few)
    run_recipe(recipe, only=["colour"])
    made = sorted((folder / "targets").rglob("*"))
    more, _ = small(f"rows-{held_out}", seeds=2, **few)
    place = recipe.targets[0].task.dataset
    for split, kind in (("train", "training or validation"), ("test", "test")):
        file = Path(getattr(place, split))
        whole = file.read_text()
        file.write_text(whole[: whole.rindex("\n", 0, -1) + 1])
        with pytest.raises(ResumeError, match=f"the {kind} rows of colour are others than those of the results so far"):
            run_recipe(anew(more), only=["colour"])
        assert sorted((folder / "targets").rglob("*")) == made
        file.write_text(whole)
    run_recipe(anew(more), only=["colour"])
    assert [line.seed for line in read_results(folder)] == [0, 0, 1]


def test_one_task_may_be_source_and_target_in_two_forms(small):
    recipe, folder = small("two-forms", methods=["prompt-tuning", "transfer"], seeds=1, rates={})
    other = recipe.sources[0].task.model_copy(update={"template": "another question: {text}"})
    recipe = replace(recipe, targets=(TaskRows(other),))
    run_recipe(recipe)
    run_recipe(recipe)
    assert [line.task for line in read_results(folder)] == ["mood", "mood"]


def test_a_line_of_a_group_that_was_removed_is_made_again_and_only_that(small):
    recipe, folder = small("group", methods=["mpt-group"], seeds=1)
    run_recipe(recipe)
    lines = read_results(folder)
    (folder / "results.jsonl").write_text(lines[1].json_text() + "\n")
    run_recipe(recipe)
    again = read_results(folder)
    assert again[0] == lines[1]
    untimed = [line.model_copy(update={"seconds": 0}) for line in (lines[0], *again[1:])]
    assert untimed == [untimed[0]] * 2


def test_one_process_at_a_time_fills_a_folder(small):
    recipe, folder = small("locked", methods=["constant"])
    folder.mkdir()
    with FileLock(folder / ".bench.lock"), pytest.raises(UsageError, match="another process is filling"):
        run_recipe(recipe)
    run_recipe(recipe)


def test_a_folder_whose_recipe_is_damaged_is_refused(small):
    recipe, folder = small("damaged", methods=["constant"])
    folder.mkdir()
    (folder / "recipe.json").write_text("[1")
    with pytest.raises(ResumeError, match=r"recipe\.json is not JSON"):
        run_recipe(recipe)


def test_only_may_not_leave_nothing(small):
    recipe, _ = small("nothing", methods=["constant", "teacher"])
    with pytest.raises(UsageError, match="teacher, sound leaves no run: teacher wants a target"):
        run_recipe(recipe, only=["teacher", "sound"])


def test_what_is_left_is_told_before_every_run(small):
    told = []
    recipe, folder = small("told", methods=["constant", "mpt"])
    run_recipe(recipe, watch=told.append)
    runs = [s for s in told if not s.title.startswith(("loading", "teacher", "source training"))]
    assert [(s.done, s.total, s.title) for s in runs] == [
        (0, 4, "constant, colour"), (1, 4, "constant, sound"), (2, 4, "mpt, colour, 2 shots, seed 0"),
        (3, 4, "mpt, sound, 2 shots, seed 0"), (4, 4, ""),
    ]  # fmt: skip
    assert [runs[0].seconds_left, runs[1].seconds_left] == [None, None]  # how long a source training takes is not known
    assert all(standing.seconds_left is None for standing in told if standing.title.startswith("source training"))
    own = read_results(folder)[2].seconds
    assert runs[3].seconds_left == pytest.approx(own)  # it is made by now
    assert runs[-1].seconds_left == 0
    assert runs[2].table == [
        ["method", "runs", "colour", "sound"], ["constant", "2", *runs[2].table[1][2:]],
    ]  # fmt: skip


def test_the_title_says_what_runs(small, monkeypatch):
    told, ran = [], []
    for where, name in ((systems, "load_backbone"), (systems, "teach"), (systems, "distill"), (bench, "_outcome")):
        made = getattr(where, name)
        monkeypatch.setattr(where, name, lambda *given, made=made, name=name, **named: (
            ran.append((name, told[-1].title)) or made(*given, **named)))  # fmt: skip
    recipe, _ = small("title", methods=["mpt", "spot"])
    run_recipe(recipe, watch=told.append)
    mpt, spot = ([("_outcome", f"{method}, {task}, 2 shots, seed 0") for task in ("colour", "sound")]
                 for method in ("mpt", "spot"))  # fmt: skip
    assert ran == [
        ("load_backbone", "loading the backbone"), ("teach", "teacher: mood"), ("teach", "teacher: speed"),
        ("distill", "source training: multitask"), *mpt, *spot,
    ]  # fmt: skip


def test_the_time_left_comes_from_runs_of_the_same_method_and_shots_alone(small, monkeypatch):
    took = {"constant": 1.0, "prompt-tuning": 10.0, "zero-shot": 3.0}
    of_run = bench._timed_lines
    monkeypatch.setattr(bench, "_timed_lines", lambda trial, *given: [
        line.model_copy(update={"seconds": took[trial.name] * (3 if trial.contender.rates and trial.seed == 0 else 1)})
        for line in of_run(trial, *given)])  # fmt: skip
    told = []
    methods = ["constant", "zero-shot", "prompt-tuning"]
    recipe, _ = small("kinds", methods=methods, shots=[2, 3], seeds=2, rates={"prompt-tuning": [0.1, 0.2, 0.3]})
    run_recipe(recipe, watch=told.append)
    left = {s.title: s.seconds_left for s in told}
    unknown = [title for title, seconds in left.items() if seconds is None]
    assert unknown == [
        "loading the backbone", "constant, colour", "constant, sound", "zero-shot, colour", "zero-shot, sound",
        "prompt-tuning, colour, 2 shots, seed 0", "prompt-tuning, sound, 2 shots, seed 0",
        "prompt-tuning, colour, 3 shots, seed 0",
    ]  # fmt: skip
    assert left["prompt-tuning, sound, 3 shots, seed 0"] == pytest.approx(30 + 4 * 10)  # three rates, and then one
    assert left["prompt-tuning, colour, 2 shots, seed 1"] == pytest.approx(4 * 10)
    assert left[""] == 0


def test_the_time_left_has_every_source_training_that_is_to_come(small, monkeypatch):
    make = systems.distill

    def slowly(*given, **named):
        time.sleep(2)
        return make(*given, **named)

    monkeypatch.setattr(systems, "distill", slowly)
    told = []
    recipe, _ = small("left", methods=["mpt"], seeds=3, source_seeds=3)
    run_recipe(recipe, watch=told.append)
    left = [s.seconds_left for s in told if s.title.startswith("source training")]
    assert left[0] is None
    assert left[1] > 4  # two more
    assert left[2] == pytest.approx(left[1] / 2, rel=0.5)
    assert told[-2].seconds_left < 2


def test_what_is_answered_is_tokenised_once(small, monkeypatch):
    recipe, _ = small("once", methods=["zero-shot", "prompt-tuning", "lora", "dept", "mpt"], seeds=2, shots=[2, 3])
    tokenised, encode = [], evaluation.encode
    monkeypatch.setattr(evaluation, "encode", lambda task, *given: tokenised.append(task.name) or encode(task, *given))
    run_recipe(recipe)
    assert sorted(tokenised) == ["colour", "sound"]


def test_a_tasks_files_are_opened_once_and_its_recipe_is_read_once_for_each_variant(small, monkeypatch):
    opened, read_rows, read, validate = [], data.read_rows, [], Config.read.__func__
    monkeypatch.setattr(data, "read_rows", lambda task, split, *given: (
        opened.append((task.name, split)) or read_rows(task, split, *given)))  # fmt: skip
    variants = {
        "alone": {"of": "mpt", "distill": {"distill_weight": 0.0}},
        "short": {"of": "lora", "lora": {"steps": 2}},
    }
    recipe, _ = small(
        "tokens", methods=["constant", "lora", "mpt-group", "teacher", "alone", "short"], variants=variants
    )
    both = Loaded.of(recipe.recipe, [t.task for t in recipe.sources], [recipe.sources[0].task, recipe.targets[0].task])
    monkeypatch.setattr(Config, "read", classmethod(
        lambda cls, values, where: read.append(cls.__name__) or validate(cls, values, where)))  # fmt: skip
    run_recipe(both)
    assert sorted(opened) == [(name, split) for name in ("colour", "mood", "speed") for split in sorted(SPLITS)]
    assert read == ["Recipe", "Recipe"]


def test_no_rate_is_trained_twice_with_the_first_seed(small, monkeypatch):
    trained, row = [], METHODS["lora"]
    recorded = replace(row, function=lambda *given: trained.append(given[0]) or row.function(*given))
    monkeypatch.setitem(METHODS, "lora", recorded)
    rates = {"lora": (1e-3, 1e-1)}
    recipe, folder = small("rates", methods=["lora"], rates=rates, seeds=2)
    run_recipe(recipe)
    assert [(*trial.tasks, trial.seed, trial.lr) for trial in trained[:4]] == [
        ("colour", 0, 1e-3), ("colour", 0, 1e-1), ("sound", 0, 1e-3), ("sound", 0, 1e-1),
    ]  # fmt: skip
    chosen = {line.task: line.lr for line in read_results(folder)}
    assert [(*trial.tasks, trial.seed, trial.lr) for trial in trained[4:]] == [
        ("colour", 1, chosen["colour"]), ("sound", 1, chosen["sound"]),
    ]  # fmt: skip
    for line in read_results(folder):
        assert line.trainings[0].config["lr"] == line.lr


def test_all_examples_and_settings_of_one_target(small):
    recipe, folder = small(
        "all", methods=["mpt"], shots=["all"], adapt={"steps": 1}, budget={}, per_task={"sound": {"steps": 2}}
    )
    run_recipe(recipe)
    assert {line.shots for line in read_results(folder)} == {None}
    steps = {
        task: MultitaskPrompt.from_pretrained(folder / "targets" / "mpt" / f"{task}-all-0").card
        for task in ("colour", "sound")
    }
    assert [card.config["steps"] for card in steps.values()] == [1, 2]
    assert [card.config["shots"] for card in steps.values()] == [None, None]
    assert "## All examples" in (folder / "results.md").read_text()


def test_the_seconds_of_a_run_are_its_own(small, monkeypatch):
    make = systems.distill

    def slowly(*given, **named):
        time.sleep(1.5)
        return make(*given, **named)

    monkeypatch.setattr(systems, "distill", slowly)
    recipe, folder = small("seconds", methods=["mpt"])
    began = time.monotonic()
    run_recipe(recipe)
    assert time.monotonic() - began > 1.5
    assert sum(line.seconds for line in read_results(folder)) < 1.4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_a_run_made_is_gone_when_its_line_is_written(small, finished, monkeypatch, dtype):
    alive, thaw = [], weights.thawed

    def watched(backbone):
        copied = thaw(backbone)
        alive.append(weakref.ref(copied.model))
        return copied

    monkeypatch.setattr(weights, "thawed", watched)
    optimizer, begin = [], torch.optim.AdamW.__init__
    monkeypatch.setattr(torch.optim.AdamW, "__init__", lambda self, *given, **named: (
        optimizer.append(weakref.ref(self)), begin(self, *given, **named))[1])  # fmt: skip
    seen = []

    def count(standing):
        seen.append((len(alive), sum(ref() is not None for ref in (*alive, *optimizer))))

    backbone = {"name": str(finished[0] / "model"), "dtype": dtype}
    recipe, _ = small("freed", methods=["fine-tuning", "lora", "dept", "prompt-tuning"], backbone=backbone)
    run_recipe(recipe, watch=count)
    assert seen[-1][0] == 4
    assert {left for _, left in seen} == {0}
