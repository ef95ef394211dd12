"""Several targets in one forward pass learn as they would alone."""

import copy
import shutil
import signal
from functools import partial

import pytest
import torch

from mptune.config import AdaptConfig
from mptune.errors import UsageError
from mptune.model.backbone import Backbone
from mptune.stages.adaptation import Target, adapt, adapt_together
from mptune.stages.experiment import Experiment
from mptune.stages.losses import supervised_loss
from mptune.stages.packing import joined, losses
from mptune.stages.training import Learner, Step
from support.toys import make_task
from support.trained import trained_backbone

Quick = partial(AdaptConfig, steps=8, validate_every=4, shared_lr=0.3, task_lr=0.1)


def targets_of(tasks, out=None, **changes):
    """Two seeds of every task, each with its own folder."""
    return [
        Target((task,), Quick(shots=8, seed=seed, **changes), out and out / f"{task.name}-{seed}")
        for task in tasks
        for seed in (0, 1)
    ]


def test_targets_adapted_together_learn_as_alone(source, toy_task, tmp_path):
    other = make_task(tmp_path, "other", "fast", "slow", verbalizer={"0": "no", "1": "yes", "2": "maybe"})
    targets = targets_of([toy_task, other])
    together = adapt_together(source, targets, trained_backbone())
    for target, prompt in zip(targets, together, strict=True):
        alone = adapt(source, target.tasks[0], trained_backbone(), target.config)
        assert prompt.tasks == alone.tasks
        assert prompt.card.seeds == alone.card.seeds
        assert prompt.card.scores == alone.card.scores
        for mine, own in zip(prompt.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(mine, own, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(together[0].shared, together[1].shared, atol=0.1)


@pytest.fixture
def exact():
    """The trained backbone in float64."""
    backbone = trained_backbone()
    return Backbone(copy.deepcopy(backbone.model).double(), backbone.tokenizer, backbone.config)


def learner_of(source, group, backbone, seed=0):
    """An adaptation that has taken eight steps, and stands still, in float64."""
    config = Quick(shots=8, seed=seed)
    prompt = adapt(source, group, trained_backbone(), config).double()
    learner = Learner(Experiment("target", group, backbone, config, 4, out=None), prompt, None, iter(()))
    learner.module = prompt
    return learner


def gradients(learners, of_each):
    """What the sum of their losses asks of each parameter; nothing of the tasks that have no rows."""
    for learner in learners:
        learner.prompt.zero_grad()
    sum(of_each).backward()
    return [p.grad for learner in learners for p in learner.prompt.parameters()]


def test_gradients_of_targets_taken_together_are_those_of_each_alone(source, toy_task, toy_tasks, tmp_path, exact):
    groups = [[toy_task], [toy_task], toy_tasks[:2], [make_task(tmp_path, "other", "fast", "slow")], toy_tasks]
    learners = [learner_of(source, group, exact, seed=number == 1) for number, group in enumerate(groups)]
    rows = [
        [(0, 3), (0, 9), (0, 5)],
        [(0, 3), (0, 9), (0, 5)],
        [(1, 3), (0, 9), (1, 5)],
        [(0, 1)],
        [(2, 3), (1, 9)],  # and none of its first task
    ]
    together = gradients(learners, losses(Step(learners, rows, exact), exact))
    alone = gradients(
        learners,
        [
            loss
            for one, picks in zip(learners, rows, strict=True)
            for loss in losses(Step([one], [picks], exact), exact)
        ],
    )
    assert [own is None for own in together] == [own is None for own in alone]
    assert sum(own is None for own in alone) == 2  # u and v of that task
    for mine, own in zip(together, alone, strict=True):
        if own is not None:
            assert float((mine - own).norm() / own.norm()) < 1e-6


def test_a_packed_step_of_one_learner_is_its_plain_step(source, toy_tasks, exact):
    learner = learner_of(source, toy_tasks[:2], exact)
    step = Step([learner], [[(1, 3), (0, 9), (1, 5)]], exact)
    batch = step.batch()
    prompts = step.prompt(batch.tasks)
    plain = supervised_loss(exact, prompts, batch, exact(prompts, batch).logits, learner.config.label_weight)
    (packed,) = losses(step, exact)
    torch.testing.assert_close(packed, plain)


def test_tasks_are_numbered_through_in_the_learners_order(source, toy_task, toy_tasks, exact):
    learners = [learner_of(source, group, exact) for group in (toy_tasks[:2], [toy_task], toy_tasks[1:])]
    picks, data, first = joined(Step(learners, [[(1, 4), (0, 2)], [(0, 7)], [(1, 0)]], exact))
    assert picks == [(1, 4), (0, 2), (2, 7), (4, 0)]
    assert [rows.task.name for rows in data] == ["mood", "speed", "toy", "speed", "colour"]
    assert first == [0, 2, 3]


def test_a_step_of_many_targets_is_one_forward_pass(source, toy_task, monkeypatch):
    seen, forward = [], Backbone.__call__

    def counted(self, prompts, batch, *rest):
        if torch.is_grad_enabled():
            seen.append((len(prompts), len(batch.task_ids)))
        return forward(self, prompts, batch, *rest)

    trained_backbone()
    monkeypatch.setattr(Backbone, "__call__", counted)
    adapt_together(source, targets_of([toy_task], steps=3), trained_backbone())
    assert seen == [(2, 16)] * 3  # two prompts for the rows of both


def test_what_is_finished_is_not_adapted_again_and_the_rest_is(source, toy_task, tmp_path):
    targets = targets_of([toy_task], tmp_path)
    whole = adapt_together(source, targets, trained_backbone())
    kept = (tmp_path / "toy-0" / "prompt.safetensors").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "toy-1")
    again = adapt_together(source, targets, trained_backbone())
    assert (tmp_path / "toy-0" / "prompt.safetensors").stat().st_mtime_ns == kept
    for one, other in zip(whole, again, strict=True):
        torch.testing.assert_close(one.shared, other.shared, atol=1e-3, rtol=1e-3)
    assert sorted(f.name for f in tmp_path.iterdir() if f.name.startswith("toy-")) == ["toy-0", "toy-1"]


def test_a_run_that_came_further_waits_for_the_others(source, toy_task, tmp_path, monkeypatch):
    """Targets stopped at different steps end where undisturbed ones do."""
    targets = targets_of([toy_task], tmp_path / "run")
    whole = adapt_together(source, targets_of([toy_task], tmp_path / "whole"), trained_backbone())
    calls, forward = [], Backbone.__call__

    def stopping(self, *args):
        if torch.is_grad_enabled():
            calls.append(1)
            if len(calls) == 5:
                signal.raise_signal(signal.SIGINT)
        return forward(self, *args)

    monkeypatch.setattr(Backbone, "__call__", stopping)
    with pytest.raises(KeyboardInterrupt):
        adapt_together(source, targets[:1], trained_backbone())
    sizes = []

    def counting(self, prompts, batch, *rest):
        if torch.is_grad_enabled():
            sizes.append(len(batch.task_ids))
        return forward(self, prompts, batch, *rest)

    monkeypatch.setattr(Backbone, "__call__", counting)
    prompts = adapt_together(source, targets, trained_backbone())
    assert sizes == [8] * 5 + [16] * 3  # the second alone, up to where the first had come
    for one, other in zip(whole, prompts, strict=True):
        torch.testing.assert_close(one.shared, other.shared, atol=1e-3, rtol=1e-3)


def test_targets_that_are_not_alike_are_refused(source, toy_task):
    targets = [Target((toy_task,), Quick()), Target((toy_task,), Quick(seed=1, batch_size=4))]
    with pytest.raises(UsageError, match=r"differ in seed and shots alone; got batch_size = 8 and 4\. Adapt them one"):
        adapt_together(source, targets, trained_backbone())


def test_dropout_is_refused_for_several_targets(source, toy_task):
    with pytest.raises(UsageError, match=r"with dropout, targets adapted together would meet other.*Switch it off"):
        adapt_together(source, targets_of([toy_task], dropout=True), trained_backbone())


def test_a_tracker_follows_one_run_alone(source, toy_task, tmp_path):
    with pytest.raises(UsageError, match="a tracker follows one run, and 2 are to train side by side; leave it away"):
        adapt_together(source, targets_of([toy_task], tmp_path), trained_backbone(), report_to=["tensorboard"])


def test_no_targets_are_refused(source):
    with pytest.raises(UsageError, match="adaptation needs a target; got none"):
        adapt_together(source, [], trained_backbone())
