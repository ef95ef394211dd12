"""What the three stages share: their data, their identity, and what a run measures and leaves behind."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, PartialState

from conftest import make_task, toy_rows, write_rows
from mptune.baselines.tuning import tune_weights
from mptune.config import AdaptConfig, DistillConfig, TeachConfig, TrainingConfig, WeightsConfig
from mptune.errors import DataError, UsageError
from mptune.runs import read_metrics
from mptune.stages.adaptation import adapt
from mptune.stages.distillation import distill
from mptune.stages.teachers import teach
from mptune.training import identity_of, stage_section, training_data, with_steps
from trained import trained_backbone

Quick = partial(TeachConfig, prompt_length=4, steps=8, validate_every=4, lr=0.3)


def data_of(task, **changes):
    return training_data([task], trained_backbone(), TrainingConfig(**changes), 4, None)


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
        pytest.param({"shots": 3}, 6, 6, id="as many validation rows as shots"),
        pytest.param({"shots": 3, "validation_shots": 5}, 6, 10, id="or as many as are asked for"),
        pytest.param({"validation_shots": 5}, 48, 16, id="without shots there is no few-shot validation"),
        pytest.param({"shots": 1000}, 48, 16, id="no more than there are"),
        pytest.param({"shots": 3, "validation_shots": 0}, 6, 0, id="or none"),
        pytest.param({"validation_shots": 0}, 48, 0, id="none without shots either"),
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
    counted = with_steps(config, training_data([toy_task], trained_backbone(), config, 4, None))
    assert counted == config.model_copy(update={"steps": steps, "epochs": None})


def test_epochs_of_a_group_count_all_its_rows(toy_tasks):
    config = TeachConfig(epochs=1, batch_size=16)
    assert with_steps(config, training_data(toy_tasks, trained_backbone(), config, 4, None)).steps == 9


def test_steps_stay_where_no_epochs_are_asked_for(toy_task):
    config = TrainingConfig(steps=7)
    assert with_steps(config, data_of(toy_task)) is config


def test_every_stage_counts_in_epochs(toy_tasks, tmp_path):
    """Twice 48 rows in batches of 12 are eight steps; 48 rows are four."""
    backbone, epoch = trained_backbone(), {"epochs": 1, "batch_size": 12, "validate_every": 100}
    teachers = [teach(task, backbone, TeachConfig(prompt_length=4, **epoch), out=tmp_path / task.name)
                for task in toy_tasks[:2]]  # fmt: skip
    source = distill(toy_tasks[:2], teachers, backbone, DistillConfig(**epoch), out=tmp_path / "source")
    adapt(source, toy_tasks[2], backbone, AdaptConfig(**epoch), out=tmp_path / "target")
    taken = {name: read_metrics(tmp_path / name)[-1]["step"] for name in ("mood", "source", "target")}
    assert taken == {"mood": 4, "source": 8, "target": 4}
    # A card says how many steps there were, which a reader of the rows' number could not know.
    assert (source.card.config["steps"], source.card.config["epochs"]) == (8, None)


def test_nothing_is_held_out_where_nothing_is_validated(toy_task):
    task = toy_task.model_copy(update={"dataset": toy_task.dataset.model_copy(update={"validation": None})})
    kept, held = (len(data_of(task, **some).train[0].examples) for some in ({"validation_shots": 0}, {}))
    assert (kept, held) == (48, 44)


def test_without_validation_the_last_state_is_kept(toy_tasks, tmp_path):
    backbone = trained_backbone()
    teachers = [teach(task, backbone, Quick(steps=2)) for task in toy_tasks[:2]]
    source = distill(toy_tasks[:2], teachers, backbone, DistillConfig(steps=2))
    few = AdaptConfig(shots=4, validation_shots=0, steps=6, shared_lr=5.0, validate_every=2, save_every=2)
    prompt = adapt(source, toy_tasks[2], backbone, few, out=tmp_path / "six")
    assert prompt.card.scores == ()
    lines = [json.loads(line) for line in (tmp_path / "six" / "metrics.jsonl").read_text().splitlines()]
    assert [sorted(line) for line in lines] == [["loss", "step"]] * 3
    # Every step counts: one more leads elsewhere, even where steps this long lead nowhere good.
    shorter = adapt(source, toy_tasks[2], backbone, few.model_copy(update={"steps": 5}))
    start = adapt(source, toy_tasks[2], backbone, few.model_copy(update={"steps": 0}))
    found = [p.shared.detach() for p in (prompt, shorter, start)]
    assert all(not torch.equal(a, b) for a, b in ((found[0], found[1]), (found[1], found[2]), (found[0], found[2])))
    assert torch.equal(start.shared.detach(), source.shared.detach())


def test_the_problems_of_all_tasks_are_said_at_once(tmp_path):
    tasks = [make_task(tmp_path, name) for name in ("first", "second", "third")]
    for task in tasks[:2]:
        rows = [*toy_rows("good", "bad", 4), {"text": "neither", "label": 9}]
        write_rows(tmp_path / f"{task.name}.train.jsonl", rows)
    with pytest.raises(DataError, match=r"(?s)task 'first, second' .*first\.train\.jsonl.*second\.train\.jsonl"):
        training_data(tasks, trained_backbone(), TrainingConfig(), 4, None)


def test_a_runs_identity_changes_with_its_rows_and_not_with_their_place(tmp_path):
    def identity(folder, rows=None):
        folder.mkdir()
        task = make_task(folder, "toy")
        if rows:
            write_rows(folder / "toy.train.jsonl", rows)
        return identity_of("teacher", [task], trained_backbone(), Quick(), data_of(task))

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
    assert stage_section(stage) == section
    identity = identity_of(stage, [toy_task], trained_backbone(), config, data_of(toy_task))
    assert identity[section]["seed"] == 0


def test_metrics_hold_a_loss_and_a_score_at_every_validation(toy_task, tmp_path):
    teach(toy_task, trained_backbone(), Quick(steps=10), out=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" in line] == [0, 4, 8, 10]
    assert [line["step"] for line in lines if "loss" in line] == [4, 8, 10]


def test_a_finished_run_holds_the_prompt_its_page_its_configuration_and_its_metrics(toy_task, tmp_path):
    teach(toy_task, trained_backbone(), Quick(), out=tmp_path / "deep" / "run")
    found = sorted(path.name for path in (tmp_path / "deep" / "run").iterdir())
    assert found == ["README.md", "config.json", "metrics.jsonl", "prompt.safetensors"]
    assert not (tmp_path / "deep" / "run.partial").exists()


def test_without_a_folder_nothing_is_written(toy_tasks, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = sorted(tmp_path.rglob("*"))
    backbone = trained_backbone()
    teachers = [teach(task, backbone, Quick(steps=2, save_every=1)) for task in toy_tasks]
    source = distill(toy_tasks[:2], teachers, backbone, DistillConfig(steps=2, save_every=1))
    adapt(source, toy_tasks[2], backbone, AdaptConfig(steps=2, save_every=1))
    assert sorted(tmp_path.rglob("*")) == before


def test_the_learning_rate_rises_and_then_falls_to_zero(toy_task, monkeypatch):
    rates, step = [], torch.optim.AdamW.step

    def recorded(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"] / trained_backbone().embedding_rms)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", recorded)
    teach(toy_task, trained_backbone(), Quick(steps=8, warmup=0.5, lr=0.4))
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.3, 0.2, 0.1])


def test_what_learns_stays_beside_the_backbone_whatever_device_accelerate_has(toy_task, monkeypatch):
    Accelerator()  # as an earlier training of this process leaves it
    monkeypatch.setitem(PartialState._shared_state, "device", torch.device("meta"))
    assert Accelerator().device.type == "meta"
    prompt = teach(toy_task, trained_backbone(), Quick())
    tuned = tune_weights("bitfit", [toy_task], trained_backbone(), WeightsConfig(steps=2, validate_every=2))
    assert {p.device.type for p in (*prompt.parameters(), *tuned.reader.parameters())} == {"cpu"}


def test_trackers_need_a_folder(toy_task):
    with pytest.raises(UsageError, match=r"trackers write into the run's folder; give out=\.\.\."):
        teach(toy_task, trained_backbone(), Quick(), report_to=("tensorboard",))


def test_a_tracker_takes_every_stages_configuration(toy_tasks, tmp_path):
    pytest.importorskip("tensorboard")
    teachers = [teach(task, trained_backbone(), Quick(steps=0)) for task in toy_tasks[:2]]
    out = tmp_path / "run"
    config = DistillConfig(steps=2, validate_every=1)
    distill(toy_tasks[:2], teachers, trained_backbone(), config, out=out, report_to=("tensorboard",))
    assert list(Path(out).rglob("events.out.tfevents*"))
