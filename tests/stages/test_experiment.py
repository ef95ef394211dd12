"""One training's rows, steps, identity and card."""

import json
from functools import partial

import pytest
import torch

from mptune.config import AdaptConfig, DistillConfig, TeachConfig, TrainingConfig, WeightsConfig
from mptune.errors import DataError, UsageError
from mptune.prompts.prompt import MultitaskPrompt
from mptune.stages.experiment import Experiment, training_data
from mptune.stages.teachers import teach
from mptune.tasks.data import TaskRows
from mptune.terminal import warn_once
from support.toys import make_task, toy_rows, write_rows
from support.trained import trained_backbone

Quick = partial(TeachConfig, prompt_length=4, steps=8, validate_every=4, lr=0.3)


def data_of(task, **changes):
    return training_data([TaskRows(task)], trained_backbone(), TrainingConfig(**changes), 4)


def experiment(tasks, config, kind="teacher"):
    return Experiment(kind, tasks, trained_backbone(), config, 4, out=None)


def test_all_rows_train_and_validate_where_no_number_is_set(toy_task):
    data = data_of(toy_task)
    assert (len(data.train[0].examples), len(data.validation[0].examples)) == (48, 16)
    assert data.shot_rows == {}


def test_validation_rows_are_the_same_few_for_every_seed(toy_task):
    first, second = (data_of(toy_task, validation_rows=5, seed=seed).validation[0] for seed in (0, 1))
    assert first.examples == second.examples
    assert len(first.examples) == 5


@pytest.mark.parametrize(
    ("changes", "train", "validation"),
    [
        pytest.param({"shots": 3}, 6, 0, id="beside shots nothing is held out"),
        pytest.param({"shots": 3, "validation_shots": 5}, 6, 10, id="but what is asked for"),
        pytest.param({"validation_shots": 5}, 48, 16, id="without shots there is no few-shot validation"),
        pytest.param({"shots": 1000, "validation_shots": 1000}, 48, 16, id="no more than there are"),
        pytest.param({}, 48, 16, id="where all rows train, the validation rows choose"),
        pytest.param({"validation_shots": 0}, 48, 0, id="or none"),
    ],
)
def test_shots_count_per_class(toy_task, changes, train, validation):
    data = data_of(toy_task, **changes)
    assert (len(data.train[0].examples), len(data.validation[0].examples)) == (train, validation)


@pytest.mark.parametrize(
    ("epochs", "batch_size", "shots", "steps"),
    [
        pytest.param(1, 16, None, 3, id="48 rows, 16 at a time"),
        pytest.param(1, 20, None, 3, id="the last batch counts whole"),
        pytest.param(2.5, 20, None, 6, id="a part of an epoch"),
        pytest.param(3, 4, 5, 8, id="of the shots that were drawn: 10 rows"),
        pytest.param(0.01, 16, None, 1, id="at least one"),
    ],
)
def test_epochs_are_passes_over_the_training_rows(toy_task, epochs, batch_size, shots, steps):
    config = TrainingConfig(epochs=epochs, batch_size=batch_size, shots=shots, seed=3)
    counted = experiment([toy_task], config).config
    assert counted == config.model_copy(update={"steps": steps, "epochs": None})


def test_epochs_of_a_group_count_all_its_rows(toy_tasks):
    config = TeachConfig(epochs=1, batch_size=16)
    assert experiment(toy_tasks, config).config.steps == 9


def test_steps_stay_where_no_epochs_are_asked_for(toy_task):
    config = TrainingConfig(steps=7)
    assert experiment([toy_task], config).config == config


def test_nothing_is_held_out_where_nothing_is_validated(toy_task):
    task = toy_task.model_copy(update={"dataset": toy_task.dataset.model_copy(update={"validation": None})})
    kept, held = (len(data_of(task, **some).train[0].examples) for some in ({"validation_shots": 0}, {}))
    assert (kept, held) == (48, 44)


def test_the_problems_of_all_tasks_are_said_at_once(tmp_path):
    tasks = [make_task(tmp_path, name) for name in ("first", "second", "third")]
    for task in tasks[:2]:
        rows = [*toy_rows("good", "bad", 4), {"text": "neither", "label": 9}]
        write_rows(tmp_path / f"{task.name}.train.jsonl", rows)
    with pytest.raises(DataError, match=r"(?s)task 'first, second' .*first\.train\.jsonl.*second\.train\.jsonl"):
        training_data([TaskRows(task) for task in tasks], trained_backbone(), TrainingConfig(), 4)


def test_a_runs_identity_changes_with_its_rows_and_not_with_their_place(tmp_path):
    def identity(folder, rows=None):
        folder.mkdir()
        task = make_task(folder, "toy")
        if rows:
            write_rows(folder / "toy.train.jsonl", rows)
        return experiment([task], Quick()).run.identity

    first = identity(tmp_path / "a")
    assert first == identity(tmp_path / "b")
    assert str(tmp_path) not in json.dumps(first)
    other = identity(tmp_path / "c", toy_rows("good", "bad", 47))
    assert {field for field in first if first[field] != other[field]} == {"data"}


@pytest.mark.parametrize(
    ("stage", "config", "section"),
    [
        ("teacher", TeachConfig(), "teach"),
        ("source", DistillConfig(), "distill"),
        ("target", AdaptConfig(), "adapt"),
        ("lora", WeightsConfig(), "lora"),
    ],
)
def test_a_stages_fields_stand_under_the_name_by_which_they_are_set(toy_task, stage, config, section):
    assert experiment([toy_task], config, stage).run.identity[section]["seed"] == 0


def test_only_the_drawn_shots_are_learnt_from(toy_task):
    data = data_of(toy_task, shots=4)
    assert [e.row for e in data.train[0].examples] == data.shot_rows["toy"]


def test_a_card_says_what_was_trained_on_which_rows_of_which_model(toy_tasks):
    config = TrainingConfig(shots=2, seed=5, steps=3)
    begun = experiment(toy_tasks, config, "target")
    card = begun.card(sources=["mood"])
    assert (card.stage, card.sources, card.scores) == ("target", ("mood",), ())
    assert [task.name for task in card.tasks] == ["mood", "speed", "colour"]
    assert {task.dataset for task in card.tasks} == {None}  # the paths of this machine go nowhere
    assert (card.backbone, card.fingerprint) == ("tiny-t5", trained_backbone().fingerprint)
    assert card.config == config.model_dump(mode="json")
    assert card.seeds["seed"] == 5
    assert card.seeds["shot_rows"] == {
        name: [e.row for e in rows.examples] for name, rows in zip(card.data, begun.data.train, strict=True)
    }
    assert card.data == {task.name: TaskRows(task).data("train").digest for task in toy_tasks}


def test_the_seed_alone_decides_what_is_drawn(toy_task):
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(drawn))  # whatever state the caller's generator is in
        drawn.append(torch.rand(4, generator=experiment([toy_task], TrainingConfig(seed=seed)).random))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_what_a_run_begins_with_belongs_to_its_identity(toy_task):
    begun = Experiment("target", [toy_task], trained_backbone(), AdaptConfig(), 4, out=None, also={"source": "abc"})
    assert begun.run.identity["source"] == "abc"


def test_a_folder_is_its_own_until_the_end_and_then_holds_the_prompt(toy_task, tmp_path):
    def begun():
        return Experiment("teacher", [toy_task], trained_backbone(), Quick(), 4, out=tmp_path / "run")

    prompt = teach(toy_task, trained_backbone(), Quick(steps=0))
    with begun() as first:
        assert first.finished() is None
        with pytest.raises(UsageError, match="another process is training"):
            begun()
        assert first.finish(prompt) is prompt
    with begun() as second:
        done = second.finished()
    assert isinstance(done, MultitaskPrompt)
    assert torch.equal(done.collapse(), prompt.collapse())


def test_a_folder_is_free_again_after_an_error(toy_task, tmp_path):
    for _ in range(2):
        with (
            pytest.raises(KeyError, match="in the middle"),
            Experiment("teacher", [toy_task], trained_backbone(), Quick(), 4, out=tmp_path / "run"),
        ):
            raise KeyError("in the middle")


def test_rows_that_were_read_are_not_read_again(toy_task, tmp_path):
    rows = TaskRows(toy_task)
    first = experiment([rows], TrainingConfig())
    for split in ("train", "validation", "test"):
        (tmp_path / f"toy.{split}.jsonl").unlink()
    second = experiment([rows], TrainingConfig(shots=2, validation_shots=2, seed=7))
    assert second.data.digests == first.data.digests
    assert second.tasks == (toy_task,)
    with pytest.raises(DataError, match="does not exist"):
        experiment([toy_task], TrainingConfig())


def test_what_rows_cannot_teach_is_said_before_training_once(backbone, tmp_path, caplog):
    warn_once.cache_clear()
    task = make_task(tmp_path, "toy")
    write_rows(tmp_path / "toy.train.jsonl", [{"text": f"row {i % 3}", "label": 1} for i in range(4)])
    for _ in range(2):
        training_data([TaskRows(task)], backbone, TrainingConfig(shots=8), 4)
    assert [r.message for r in caplog.records] == [
        "toy: all training rows have the label 1, so there is nothing to tell apart; add rows of 0",
        "toy: there are fewer training rows than 8 shots: 4 rows (1, 2, 3, 4) of label 1",
        "toy: some training rows stand twice, and count double: row 4 as 1",
    ]


def test_a_training_wants_tasks_of_different_names(toy_task):
    for tasks, got in (((), "got none"), ((toy_task, toy_task), "got toy, toy")):
        with pytest.raises(UsageError, match=f"a training wants a task or more, each of a name of its own; {got}"):
            Experiment("target", tasks, trained_backbone(), TeachConfig(), 4, out=None)
