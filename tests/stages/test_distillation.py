"""Stage 2 on a real tiny model: who teaches whom, and what learns."""

import hashlib
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor

from mptune.config import DistillConfig, TeachConfig
from mptune.errors import BackboneMismatch, ConfigError, UsageError
from mptune.model.backbone import Backbone
from mptune.prompts.prompt import MultitaskPrompt
from mptune.stages import distillation, training
from mptune.stages.distillation import distill
from mptune.stages.teachers import teach
from support.models import make_backbone
from support.toys import make_task, make_tasks
from support.trained import trained_backbone

# Without a cache, so that each step is seen to ask its teachers; test_teacher_outputs.py has the cache.
Quick = partial(DistillConfig, steps=8, validate_every=4, shared_lr=0.3, task_lr=0.1, teacher_cache=0)


def teacher_of(task, seed=0, backbone=None, length=4, steps=0):
    config = TeachConfig(prompt_length=length, steps=steps, seed=seed, lr=0.3, validate_every=8)
    return teach(task, backbone or trained_backbone(), config)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """A teacher of each toy task, untrained but different from all others; only read."""
    return [teacher_of(task, seed) for seed, task in enumerate(make_tasks(tmp_path_factory.mktemp("taught")))]


@dataclass
class Call:
    """One forward pass outside validation."""

    taught: bool  # whether it was a teacher's: without gradients
    prompts: Tensor  # each row's [B, L, D]
    tasks: list[int]  # each row's, by number
    texts: list[str]
    layers: tuple[int, ...]


@pytest.fixture
def calls(monkeypatch):
    """What the backbone is asked while the student learns."""
    seen, validating = [], []
    forward, validate = Backbone.__call__, training.validate

    def recorded(self, prompts, batch, hidden_layers=()):
        if not validating:
            texts = self.tokenizer.batch_decode(batch.input_ids, skip_special_tokens=True)
            seen.append(
                Call(
                    not torch.is_grad_enabled(),
                    prompts.detach()[batch.task_ids],
                    [batch.tasks[place] for place in batch.task_ids],
                    [t.strip() for t in texts],
                    tuple(hidden_layers),
                )
            )
        return forward(self, prompts, batch, hidden_layers)

    def validated(*args):
        validating.append(True)
        try:
            return validate(*args)
        finally:
            validating.pop()

    monkeypatch.setattr(Backbone, "__call__", recorded)
    monkeypatch.setattr(training, "validate", validated)
    return seen


def feed(monkeypatch, *batches):
    """Let the mixture be these tasks, batch by batch, four rows of each."""

    def stream(sizes, rates, batch_size, generator):
        for number, tasks in enumerate(batches):
            yield [(task, (4 * number + row) % sizes[task]) for task in tasks for row in range(4)]

    monkeypatch.setattr(distillation, "stochastic_tasks", stream)


def test_a_student_rises_above_chance_on_every_task(tmp_path):
    tasks = [make_task(tmp_path, "mood", "good", "awful"), make_task(tmp_path, "speed", "fast", "slow")]
    taught = [teacher_of(task, steps=16) for task in tasks]
    start = distill(tasks, taught, trained_backbone(), Quick(steps=0))
    prompt = distill(tasks, taught, trained_backbone(), Quick(steps=24))
    assert [s["value"] for s in start.card.scores] == [50, 50]
    assert [s["task"] for s in prompt.card.scores] == ["mood", "speed"]
    assert all(s["value"] >= 65 for s in prompt.card.scores)


def test_distillation_leaves_backbone_and_teachers_alone(toy_tasks, teachers):
    backbone = trained_backbone()
    before = {name: p.clone() for name, p in backbone.model.state_dict().items()}
    taught = [teacher.shared.clone() for teacher in teachers]
    distill(toy_tasks, teachers, backbone, Quick())
    for name, p in backbone.model.state_dict().items():
        assert torch.equal(p, before[name]), name
    assert all(p.grad is None for p in backbone.model.parameters())
    assert all(torch.equal(t.shared, old) for t, old in zip(teachers, taught, strict=True))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(toy_tasks, teachers, tmp_path):
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        torch.manual_seed(ord(name))
        distill(toy_tasks, teachers, trained_backbone(), Quick(seed=seed), out=tmp_path / name)
    digests = [hashlib.sha256((tmp_path / n / "prompt.safetensors").read_bytes()).hexdigest() for n in "abc"]
    assert digests[0] == digests[1] != digests[2]


def test_every_example_is_taught_by_its_own_tasks_teacher(toy_tasks, teachers, calls):
    student = distill(toy_tasks, teachers[::-1], trained_backbone(), Quick())
    assert [task.name for task in student.tasks] == [task.name for task in toy_tasks]
    taught = [call for call in calls if call.taught]
    assert len(taught) == 8
    for call in taught:
        for prompt, number, text in zip(call.prompts, call.tasks, call.texts, strict=True):
            assert text.startswith(toy_tasks[number].name)
            assert torch.equal(prompt, teachers[number].shared)
    assert {number for call in taught for number in call.tasks} == {0, 1, 2}


def test_student_and_teacher_read_the_same_batch_and_the_student_its_own_prompts(toy_tasks, teachers, calls):
    start = distill(toy_tasks, teachers, trained_backbone(), Quick(steps=0)).collapse()
    distill(toy_tasks, teachers, trained_backbone(), Quick(steps=1))
    learnt, taught = calls
    assert (learnt.taught, taught.taught) == (False, True)
    assert learnt.texts == taught.texts
    assert torch.equal(learnt.prompts, start[learnt.tasks])


def test_one_teacher_artifact_may_hold_many_tasks(toy_tasks, teachers, calls):
    several = distill(toy_tasks, teachers, trained_backbone(), Quick(steps=0, noise=0.5))
    distill(toy_tasks[1:], [several], trained_backbone(), Quick(steps=2))
    wanted = several.collapse()[1:]
    for call in (call for call in calls if call.taught):
        assert torch.equal(call.prompts, wanted[call.tasks])


def test_a_task_absent_from_all_batches_keeps_its_vectors(toy_tasks, teachers, monkeypatch):
    start = distill(toy_tasks, teachers, trained_backbone(), Quick(steps=0)).task_vectors
    feed(monkeypatch, *[(0, 1)] * 8)
    end = distill(toy_tasks, teachers, trained_backbone(), Quick(weight_decay=0.1)).task_vectors
    for before, after in ((start.u, end.u), (start.v, end.v)):
        assert torch.equal(after[2], before[2])
        assert not torch.equal(after[0], before[0])
        assert not torch.equal(after[1], before[1])


def test_a_task_absent_from_later_batches_keeps_what_it_had_learnt(toy_tasks, teachers, monkeypatch):
    feed(monkeypatch, *[(0, 1, 2)] * 3, *[(0, 1)] * 5)
    seen, forward = [], MultitaskPrompt.forward

    def recorded(self, tasks):
        seen.append(torch.cat([self.u[2].detach().flatten(), self.v[2].detach().flatten()]))
        return forward(self, tasks)

    monkeypatch.setattr(MultitaskPrompt, "forward", recorded)
    distill(toy_tasks, teachers, trained_backbone(), Quick(weight_decay=0.1))
    assert len(seen) == 8
    assert not torch.equal(seen[2], seen[3])
    assert all(torch.equal(seen[3], later) for later in seen[4:])


def test_a_distillation_weight_of_zero_never_asks_a_teacher(toy_tasks, teachers, calls):
    distill(toy_tasks, teachers, trained_backbone(), Quick(distill_weight=0))
    assert len(calls) == 8
    assert not any(call.taught or call.layers for call in calls)


def test_a_distillation_weight_of_zero_learns_the_same_from_any_teachers(toy_tasks, teachers):
    others = [teacher_of(task, seed=9) for task in toy_tasks]
    for weight, alike in ((0, True), (0.9, False)):
        first, second = (
            distill(toy_tasks, t, trained_backbone(), Quick(distill_weight=weight)).shared for t in (teachers, others)
        )
        assert torch.equal(first, second) == alike


@pytest.mark.parametrize(("weight", "layers"), [(0, ()), (1, (-1, -2))])
def test_hidden_states_are_asked_for_only_where_they_weigh(toy_tasks, teachers, calls, weight, layers):
    distill(toy_tasks, teachers, trained_backbone(), Quick(steps=2, hidden_weight=weight, hidden_layers=(-1, -2)))
    assert {call.layers for call in calls} == {layers}


def test_without_decomposition_one_prompt_serves_all_tasks(toy_tasks, teachers):
    prompt = distill(toy_tasks, teachers, trained_backbone(), Quick(decomposition=False))
    start = distill(toy_tasks, teachers, trained_backbone(), Quick(decomposition=False, steps=0))
    assert (prompt.task_vectors.u == 1).all()
    assert (prompt.task_vectors.v == 1).all()
    assert not torch.equal(prompt.shared, start.shared)


def test_a_task_matrix_may_have_rank_two(toy_tasks, teachers):
    prompt = distill(toy_tasks, teachers, trained_backbone(), Quick(rank=2))
    start = distill(toy_tasks, teachers, trained_backbone(), Quick(rank=2, steps=0))
    assert prompt.task_vectors.u.shape == (3, 4, 2)
    assert prompt.task_vectors.v.shape == (3, 2, trained_backbone().width)
    for column in (0, 1):
        assert not torch.equal(prompt.task_vectors.u[..., column], start.task_vectors.u[..., column])


def test_a_student_may_be_shorter_than_its_teachers(toy_tasks, teachers, calls):
    prompt = distill(toy_tasks, teachers, trained_backbone(), Quick(prompt_length=2))
    assert prompt.collapse().shape == (3, 2, trained_backbone().width)
    assert {(call.taught, call.prompts.shape[1]) for call in calls} == {(False, 2), (True, 4)}


def test_a_student_may_start_at_the_mean_of_its_teachers(toy_tasks, teachers):
    prompt = distill(toy_tasks, teachers, trained_backbone(), Quick(steps=0, initialise="teachers"))
    assert torch.allclose(prompt.shared, (teachers[0].shared + teachers[1].shared + teachers[2].shared) / 3)
    with pytest.raises(UsageError, match="wants a student as long as they are, 4 soft tokens; got prompt_length 2"):
        distill(toy_tasks, teachers, trained_backbone(), Quick(initialise="teachers", prompt_length=2))


def test_sampling_all_puts_every_task_into_every_batch(toy_tasks, teachers, calls):
    distill(toy_tasks, teachers, trained_backbone(), Quick(sampling="all", batch_size=6))
    assert all(sorted(call.tasks) == [0, 0, 1, 1, 2, 2] for call in calls)


def test_fewer_than_two_tasks_are_refused(toy_tasks, teachers):
    with pytest.raises(UsageError, match=r"two source tasks or more; got 1\. For a single task use `mptune teach`"):
        distill(toy_tasks[:1], teachers, trained_backbone(), Quick())


def test_a_missing_teacher_is_named(toy_tasks, teachers):
    with pytest.raises(UsageError, match="no teacher for colour; there are teachers for mood, speed"):
        distill(toy_tasks, teachers[:2], trained_backbone(), Quick())
    with pytest.raises(UsageError, match="no teacher for mood, speed, colour; there are teachers for none"):
        distill(toy_tasks, [], trained_backbone(), Quick())


def test_teachers_of_another_backbone_are_refused(toy_tasks, teachers):
    other = make_backbone("t5", seed=1)
    with pytest.raises(BackboneMismatch, match="mood was trained for tiny-t5, and a soft prompt fits no other model"):
        distill(toy_tasks, teachers, other, Quick())


def test_teachers_of_different_lengths_are_refused(toy_tasks, teachers):
    longer = teacher_of(toy_tasks[2], length=6)
    with pytest.raises(UsageError, match="teachers must be equally long; got prompts of 4, 6 soft tokens"):
        distill(toy_tasks, [*teachers[:2], longer], trained_backbone(), Quick())


def test_the_card_names_the_source_tasks(toy_tasks, teachers):
    card = distill(toy_tasks, teachers, trained_backbone(), Quick(steps=0)).card
    assert card.stage == "source"
    assert card.sources == ("mood", "speed", "colour")
    assert sorted(card.data) == ["colour", "mood", "speed"]


@pytest.mark.parametrize("layer", [99, 3, -4])
def test_a_layer_that_the_backbone_does_not_have_is_said_before_a_folder_is_made(toy_tasks, teachers, tmp_path, layer):
    with pytest.raises(ConfigError, match=rf"hidden_layers wants 0\.\.2 of this backbone, .* got \[{layer}\]"):
        distill(toy_tasks, teachers, trained_backbone(), Quick(hidden_layers=(layer,)), out=tmp_path / "prompt")
    assert not list(tmp_path.glob("prompt*"))
    distill(toy_tasks, teachers, trained_backbone(), Quick(steps=1, hidden_layers=(0, 2, -3)))
