"""A comparison that is stopped, gone on with, added to, changed, or refused; and what is told of it meanwhile."""

import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from mptune.answers import evaluation, metrics
from mptune.comparison import bench, systems
from mptune.comparison.bench import run_recipe
from mptune.comparison.loaded import Loaded
from mptune.comparison.methods import METHODS
from mptune.comparison.results import FILES, read_results
from mptune.config import Config
from mptune.errors import MissingExtraError, ResumeError, UsageError
from mptune.prompts.prompt import MultitaskPrompt
from mptune.stages import training, weights
from mptune.tasks import data
from mptune.tasks.data import TaskRows
from mptune.tasks.task import SPLITS

pytestmark = pytest.mark.slow  # on the model of a finished comparison


class Stop(Exception):
    pass


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
    unread, _ = small("first", methods=["constant"], lora={"steps": 7})  # no result has read them
    run_recipe(unread)
    other, _ = small("first", methods=["constant"], evaluate={"rows": 7})
    with pytest.raises(ResumeError, match=r"holds results with evaluate\.rows = 15, and now it is 7"):
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


def slow_distillation(monkeypatch, seconds):
    """Let every source training take so much longer."""
    make = systems.distill

    def slowly(*given, **named):
        time.sleep(seconds)
        return make(*given, **named)

    monkeypatch.setattr(systems, "distill", slowly)


def test_the_time_left_has_every_source_training_that_is_to_come(small, monkeypatch):
    slow_distillation(monkeypatch, 2)
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
    slow_distillation(monkeypatch, 1.5)
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
