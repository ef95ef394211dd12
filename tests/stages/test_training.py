"""The loop of every stage: what it validates, keeps, measures and leaves behind."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, PartialState

from mptune.answers.evaluation import Validated
from mptune.answers.metrics import Score
from mptune.comparison.baselines.weights import bitfit
from mptune.config import AdaptConfig, DistillConfig, TeachConfig, WeightsConfig
from mptune.errors import DivergedError, UsageError
from mptune.stages import training
from mptune.stages.adaptation import adapt
from mptune.stages.distillation import distill
from mptune.stages.experiment import Experiment
from mptune.stages.optimization import two_speed
from mptune.stages.run import read_metrics
from mptune.stages.sampling import single_task
from mptune.stages.teachers import teach
from mptune.stages.training import Learner, Training
from mptune.stages.weights import tune_weights
from support.trained import trained_backbone

Quick = partial(TeachConfig, prompt_length=4, steps=8, validate_every=4, lr=0.3)


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
    tuned = tune_weights(bitfit, [toy_task], trained_backbone(), WeightsConfig(steps=2, validate_every=2))
    assert {p.device.type for p in (*prompt.parameters(), *tuned.reader.parameters())} == {"cpu"}


def test_trackers_need_a_folder(toy_task):
    with pytest.raises(UsageError, match=r"trackers write into the run's folder; give out=\.\.\."):
        teach(toy_task, trained_backbone(), Quick(), report_to=("tensorboard",))


def test_a_tracker_that_is_none_or_not_installed_is_said(toy_task, tmp_path, monkeypatch):
    for name, says in (
        ("tensorbord", r"no tracker is called 'tensorbord'\. Did you mean 'tensorboard'\?"),
        ("wandb", "the tracker wandb is not installed; pip install wandb, or leave it away"),
    ):
        monkeypatch.setattr(training, "get_available_trackers", list)
        with pytest.raises(UsageError, match=says):
            teach(toy_task, trained_backbone(), Quick(), out=tmp_path / "run", report_to=(name,))


def test_a_tracker_takes_every_stages_configuration(toy_tasks, tmp_path):
    pytest.importorskip("tensorboard")
    teachers = [teach(task, trained_backbone(), Quick(steps=0)) for task in toy_tasks[:2]]
    out = tmp_path / "run"
    config = DistillConfig(steps=2, validate_every=1)
    distill(toy_tasks[:2], teachers, trained_backbone(), config, out=out, report_to=("tensorboard",))
    assert list(Path(out).rglob("events.out.tfevents*"))


# -- step by step -----------------------------------------------------------------------------------------------------


def learner_of(task, out=None, kind="teacher", **changes):
    """An untrained prompt of a toy task, about to learn."""
    experiment = Experiment(kind, [task], trained_backbone(), Quick(**changes), 4, out=out)
    prompt = teach(task, trained_backbone(), Quick(steps=0))
    optimizer = two_speed(prompt, experiment.config, shared_lr=0.3, task_lr=None)
    return Learner(experiment, prompt, optimizer, single_task(48, 8, experiment.random))


def train(learner, loss=lambda step: step.prompt([0]).pow(2).sum()):
    """Take all steps; return them."""
    steps = []
    with Training([learner], trained_backbone(), title="test") as training:
        for step in training:
            steps.append(step)
            training.descend(loss(step))
    return steps


def scripted(monkeypatch, learner, *values):
    """Let validation after validation say these scores (none for None); return the prompts that were validated."""
    answers, prompts = iter(values), []

    def validate(backbone, asked, config):
        assert not backbone.model.training
        prompts.append(learner.prompt.shared.detach().clone())
        value = next(answers)
        scores = () if value is None else (Score("toy", "validation", "accuracy", value, 16),)
        return [Validated(scores, 0.5) for _ in asked]

    monkeypatch.setattr(training, "validate", validate)
    return prompts


def test_every_step_brings_its_own_rows_and_the_last_is_the_last(toy_task):
    learner = learner_of(toy_task, steps=5)
    stream = single_task(48, 8, torch.Generator().manual_seed(0))
    steps = train(learner)
    assert [step.picks for step in steps] == [[next(stream)] for _ in range(5)]
    assert learner.step == 5
    batch = steps[1].batch()
    rows = [learner.experiment.data.train[0].inputs[row] for _, row in steps[1].picks[0]]
    assert [ids[mask == 1].tolist() for ids, mask in zip(batch.input_ids, batch.mask, strict=True)] == list(
        map(list, rows)
    )


def test_every_step_wants_a_descent(toy_task):
    with (
        Training([learner_of(toy_task)], trained_backbone(), title="test") as training,
        pytest.raises(AssertionError, match="every step wants `descend`"),
    ):
        for _ in training:
            pass


def test_the_first_of_the_best_validated_states_is_left_in_the_prompt_with_its_scores(toy_task, monkeypatch):
    learner = learner_of(toy_task, steps=8, validate_every=2)
    seen = scripted(monkeypatch, learner, 50, 70, 60, 70, 65)
    train(learner)
    assert len({float(prompt.sum()) for prompt in seen}) == 5
    assert torch.equal(learner.prompt.shared, seen[1])
    assert [score["value"] for score in learner.prompt.card.scores] == [70]


def test_the_start_is_kept_where_nothing_learnt_is_better(toy_task, monkeypatch):
    learner = learner_of(toy_task, steps=4, validate_every=2)
    seen = scripted(monkeypatch, learner, 50, 40, 50)
    train(learner)
    assert torch.equal(learner.prompt.shared, seen[0])
    assert learner.prompt.card.kept == 0
    trained = learner.prompt.card.model_copy(update={"config": {"steps": 4}})
    assert trained.kept_start
    assert not trained.model_copy(update={"config": {"steps": 0}}).kept_start  # nobody asked for training
    assert not trained.model_copy(update={"kept": 2}).kept_start


def test_the_last_state_is_kept_where_nothing_tells_which_is_best(toy_task, monkeypatch):
    learner = learner_of(toy_task, steps=4, validate_every=3)
    seen = scripted(monkeypatch, learner, None, None, None)
    train(learner)
    assert torch.equal(learner.prompt.shared, seen[-1])
    assert not torch.equal(seen[-1], seen[-2])
    assert learner.prompt.card.kept == 4


def test_a_best_state_scored_by_a_killed_process_is_scored_again(toy_task, tmp_path, monkeypatch):
    settings = dict(steps=6, validate_every=2, save_every=4)
    first = learner_of(toy_task, tmp_path / "run", **settings)
    seen = scripted(monkeypatch, first, 50, 70, 60)
    monkeypatch.setattr(Learner, "save", lambda self, save=Learner.save: save(self) or pytest.exit("killed"))
    with first.experiment, pytest.raises(pytest.exit.Exception):
        train(first)
    monkeypatch.undo()
    second = learner_of(toy_task, tmp_path / "run", **settings)
    asked = scripted(monkeypatch, second, 60, 70)
    with second.experiment:
        assert len(train(second)) == 2
    assert torch.equal(second.prompt.shared, seen[1])
    assert torch.equal(asked[-1], seen[1])
    assert [score["value"] for score in second.prompt.card.scores] == [70]


def test_gradients_are_clipped(toy_task, monkeypatch):
    learner, norms, step = learner_of(toy_task, steps=2, clip=0.25), [], torch.optim.AdamW.step

    def noted(self, *args, **kwargs):
        norms.append(float(learner.prompt.shared.grad.norm()))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    train(learner, lambda step: 1_000 * step.prompt([0]).pow(2).sum())
    assert norms == pytest.approx([0.25, 0.25], rel=1e-3)


@pytest.mark.parametrize("dropout", [False, True])
def test_dropout_is_on_in_steps_alone_and_off_after_an_error_too(toy_task, dropout):
    backbone, seen = trained_backbone(), []

    def failing(step):
        seen.append(backbone.model.training)
        if len(seen) == 3:
            raise KeyError("in the middle")
        return step.prompt([0]).pow(2).sum()

    with pytest.raises(KeyError, match="in the middle"):
        train(learner_of(toy_task, dropout=dropout, validate_every=1), failing)
    assert seen == [dropout] * 3
    assert not backbone.model.training


def test_a_resumed_step_draws_as_it_would_have_drawn(toy_task, tmp_path):
    settings, drawn = dict(steps=4, save_every=2), []

    def noted(step):
        drawn.append(float(torch.rand(())))
        return step.prompt([0]).pow(2).sum()

    train(learner_of(toy_task, **settings), noted)
    first = learner_of(toy_task, tmp_path / "run", **settings)
    with first.experiment, pytest.raises(KeyError):
        train(first, lambda step: noted(step) if first.step < 2 else {}["killed"])
    second = learner_of(toy_task, tmp_path / "run", **settings)
    with second.experiment:
        train(second, noted)
    assert drawn[4:] == drawn[:4]
    assert len(set(drawn)) == 4


# -- numbers that are not finite --------------------------------------------------------------------------------------


def loss_at(step_of_nan, learner, value=float("nan")):
    """A loss that is finite until one step."""
    return lambda step: step.prompt([0]).pow(2).sum() * (value if learner.step + 1 == step_of_nan else 1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_training_stops_at_the_first_loss_that_is_not_finite_with_the_best_state_before_it(
    toy_task, monkeypatch, caplog, value
):
    learner = learner_of(toy_task, steps=8, validate_every=2)
    seen = scripted(monkeypatch, learner, 50, 70, 60, 99)
    assert len(train(learner, loss_at(6, learner, value))) == 6
    assert torch.equal(learner.prompt.shared, seen[1])
    card = learner.prompt.card
    assert (card.kept, card.stopped, [score["value"] for score in card.scores]) == (2, 6, [70])
    assert caplog.messages == [
        "test: the numbers of step 6 are not finite, and training stops there; the best state before it is kept, that "
        "after step 2. Lower teach.lr = 0.3."
    ]


def test_a_gradient_that_is_not_finite_moves_nothing(toy_task, monkeypatch):
    learner = learner_of(toy_task, steps=4, validate_every=4)
    scripted(monkeypatch, learner, 50)
    train(learner, lambda step: (step.prompt([0]).sum() * 0).sqrt())
    assert (learner.stopped, learner.step, learner.prompt.card.kept) == (1, 0, 0)
    assert learner.prompt.shared.isfinite().all()


@pytest.mark.parametrize("broken", ["prompt", "loss"])
def test_a_state_that_is_not_finite_never_wins_a_validation(toy_task, monkeypatch, caplog, broken):
    """As decay may leave it after the last of the steps, whose loss was finite."""
    learner = learner_of(toy_task, steps=2, validate_every=2)
    asked = []

    def validate(backbone, prompts, config):
        asked.append(True)
        if len(asked) == 2 and broken == "prompt":
            learner.prompt.shared.data[0, 0] = float("nan")
        nan = len(asked) == 2 and broken == "loss"
        return [Validated((Score("toy", "validation", "accuracy", 10.0 * len(asked), 16),), float("nan") if nan else 1)]

    monkeypatch.setattr(training, "validate", validate)
    train(learner)
    card = learner.prompt.card
    assert ([s["value"] for s in card.scores], card.kept, card.stopped) == ([10.0], 0, 2)
    assert learner.prompt.shared.isfinite().all()
    assert "step 2 are not finite" in caplog.text


def test_a_start_that_is_not_finite_is_an_error(toy_task, monkeypatch):
    learner = learner_of(toy_task, steps=2)
    monkeypatch.setattr(training, "validate", lambda *_: [Validated((), float("nan"))])
    with pytest.raises(DivergedError, match=r"test: already at its start .* Try --set backbone\.dtype=float32"):
        train(learner)


def test_of_prompts_that_share_a_training_one_that_breaks_off_stops_alone(toy_task, monkeypatch):
    pair = [learner_of(toy_task, steps=4, validate_every=2) for _ in range(2)]
    monkeypatch.setattr(
        training, "validate",
        lambda backbone, asked, config: [Validated((), 1.0) for _ in asked],
    )  # fmt: skip
    with Training(pair, trained_backbone(), title="test") as steps:
        for step in steps:
            losses = [learner.module([0]).pow(2).sum() for learner in step.learners]
            if pair[0] in step.learners and pair[0].step == 2:
                losses[0] = losses[0] * float("nan")
            steps.descend(*losses)
    assert [(learner.step, learner.stopped) for learner in pair] == [(2, 3), (4, None)]
    alone = learner_of(toy_task, steps=4, validate_every=2)
    train(alone)
    assert torch.equal(alone.prompt.shared, pair[1].prompt.shared)


def test_a_rate_far_too_high_ends_with_finite_numbers_and_says_so(toy_task, tmp_path, caplog):
    config = Quick(steps=60, validate_every=5, lr=100, weight_decay=100, save_every=10)
    prompt = teach(toy_task, trained_backbone(), config, out=tmp_path / "run")
    assert prompt.card.stopped is not None
    assert prompt.collapse().isfinite().all()
    assert "Lower teach.lr = 100 or teach.weight_decay = 100." in caplog.text
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert teach(toy_task, trained_backbone(), config, out=tmp_path / "run").card.stopped == prompt.card.stopped
