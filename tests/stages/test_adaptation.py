"""Stage 3 on a real tiny model: where a target starts, what of it learns, and that it never gets worse."""

import hashlib
import json
from functools import partial
from pathlib import Path

import pytest
import torch

from mptune.config import AdaptConfig, TeachConfig
from mptune.errors import BackboneMismatch, UnknownNameError
from mptune.model.encoding import collate
from mptune.stages.adaptation import adapt
from mptune.stages.experiment import training_data
from mptune.stages.losses import task_loss
from mptune.stages.teachers import teach
from mptune.tasks.data import TaskRows
from support.models import make_backbone
from support.toys import make_task, toy_rows, write_rows
from support.trained import trained_backbone, untrained_source

Quick = partial(AdaptConfig, steps=8, validate_every=4, shared_lr=0.3, task_lr=0.1)


def start(source, task, rule):
    """What adaptation starts from: the result of no steps."""
    return adapt(source, task, trained_backbone(), Quick(steps=0, initialise=rule))


def test_adaptation_rises_above_chance(source, toy_task):
    before = start(source, toy_task, "mean-vectors").card.scores[0]["value"]
    after = adapt(source, toy_task, trained_backbone(), Quick(steps=24)).card.scores[0]["value"]
    assert before <= 50
    assert after >= 65


def test_adaptation_leaves_backbone_and_source_alone(source, toy_task):
    backbone = trained_backbone()
    before = {name: p.clone() for name, p in backbone.model.state_dict().items()}
    old = {name: t.clone() for name, t in source.tensors().items()}
    adapt(source, toy_task, backbone, Quick())
    for name, p in backbone.model.state_dict().items():
        assert torch.equal(p, before[name]), name
    assert all(p.grad is None for p in backbone.model.parameters())
    assert all(torch.equal(t, old[name]) for name, t in source.tensors().items())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(source, toy_task, tmp_path):
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        torch.manual_seed(ord(name))
        adapt(source, toy_task, trained_backbone(), Quick(seed=seed), out=tmp_path / name)
    digests = [hashlib.sha256((tmp_path / n / "prompt.safetensors").read_bytes()).hexdigest() for n in "abc"]
    assert digests[0] == digests[1] != digests[2]


def test_mean_vectors_average_u_and_v_apart(source, toy_task):
    prompt = start(source, toy_task, "mean-vectors")
    assert torch.allclose(prompt.task_vectors.u[0], sum(source.u) / 3)
    assert torch.allclose(prompt.task_vectors.v[0], sum(source.v) / 3)


def test_mean_matrices_are_the_best_of_their_rank_for_the_average_matrix(source, toy_task):
    prompt = start(source, toy_task, "mean-matrices")
    average = sum(u @ v for u, v in zip(source.u, source.v, strict=True)).detach() / 3
    off = (prompt.task_vectors.matrices[0] - average).norm()
    # Eckart and Young: nothing of rank one is nearer than what the further singular values leave.
    assert torch.allclose(off, torch.linalg.svdvals(average)[1:].norm(), rtol=1e-4)


def test_the_shared_rule_starts_at_ones(source, toy_task):
    prompt = start(source, toy_task, "shared")
    assert torch.equal(prompt.collapse()[0], source.shared)
    assert (prompt.task_vectors.u == 1).all()


@pytest.mark.parametrize("number", [0, 2])
def test_a_source_tasks_name_starts_at_its_vectors(source, toy_task, number):
    prompt = start(source, toy_task, source.tasks[number].name)
    assert torch.equal(prompt.collapse()[0], source.collapse()[number])


def test_the_closest_source_is_the_one_with_the_least_loss_on_the_targets_rows(source, toy_task):
    backbone = trained_backbone()
    data = training_data([TaskRows(toy_task)], backbone, Quick(), 4).train
    batch = collate([(0, row) for row in range(48)], data, backbone)
    losses = [float(task_loss(backbone(p[None], batch).logits, batch.labels)) for p in source.collapse()]
    assert len(set(losses)) == 3
    best = losses.index(min(losses))
    assert torch.equal(start(source, toy_task, "closest").collapse()[0], source.collapse()[best])


@pytest.mark.parametrize("rule", ["mean-vectors", "mean-matrices", "closest", "shared", "mood"])
def test_every_rule_keeps_the_rank_of_the_source(toy_tasks, toy_task, rule):
    prompt = start(untrained_source(toy_tasks, rank=2), toy_task, rule)
    assert prompt.task_vectors.u.shape == (1, 4, 2)
    assert prompt.task_vectors.v.shape == (1, 2, trained_backbone().width)


def test_an_unknown_rule_suggests_the_nearest(source, toy_task):
    with pytest.raises(UnknownNameError, match=r"'mean-vector'\. Did you mean 'mean-vectors'\?"):
        adapt(source, toy_task, trained_backbone(), Quick(initialise="mean-vector"))
    with pytest.raises(UnknownNameError, match=r"'moods'\. Did you mean 'mood'\? Known: .*colour.*shared.*speed"):
        adapt(source, toy_task, trained_backbone(), Quick(initialise="moods"))


def test_no_steps_return_the_transferred_prompt(source, toy_task):
    prompt = start(source, toy_task, "speed")
    assert torch.equal(prompt.shared, source.shared)
    assert torch.equal(prompt.u[0], source.u[1])
    assert torch.equal(prompt.v[0], source.v[1])


@pytest.mark.parametrize(
    ("train", "moved"),
    [("all", {"shared", "u", "v"}), ("task-vectors", {"u", "v"}), ("shared", {"shared"})],
)
def test_only_what_is_chosen_learns(source, toy_task, train, moved):
    before = start(source, toy_task, "mean-vectors").tensors()
    after = adapt(source, toy_task, trained_backbone(), Quick(train=train, weight_decay=0.1)).tensors()
    assert {name for name in before if not torch.equal(before[name], after[name])} == moved


def test_a_group_shares_one_prompt_and_has_vectors_of_its_own(toy_tasks, toy_task):
    source = untrained_source(toy_tasks[:2])
    group = [toy_task, toy_tasks[2]]
    prompt = adapt(source, group, trained_backbone(), Quick(steps=12))
    before = start(source, group, "mean-vectors")
    assert [task.name for task in prompt.tasks] == ["toy", "colour"]
    assert prompt.shared.shape == source.shared.shape
    assert not torch.equal(prompt.shared, before.shared)
    assert not torch.equal(prompt.u[0], before.u[0])
    assert not torch.equal(prompt.u[0], prompt.u[1])
    assert prompt.card.sources == ("mood", "speed")
    assert [s["task"] for s in prompt.card.scores] == ["toy", "colour"]


def test_each_task_of_a_group_starts_at_its_own_closest_source(source, tmp_path):
    group = [make_task(tmp_path, "all-no"), make_task(tmp_path, "all-yes")]
    for label, task in enumerate(group):
        rows = [{**row, "label": label} for row in toy_rows("good", "bad", 16)]
        write_rows(tmp_path / f"{task.name}.train.jsonl", rows)
    together = start(source, group, "closest")
    alone = [start(source, task, "closest") for task in group]
    assert not torch.equal(*together.u)
    for number in (0, 1):
        assert torch.equal(together.u[number], alone[number].u[0])
        assert torch.equal(together.v[number], alone[number].v[0])


def test_shots_are_drawn_per_class_by_the_seed_and_written_into_the_card(source, toy_task):
    held = {"shots": 4, "validation_shots": 4, "steps": 0}
    few = [adapt(source, toy_task, trained_backbone(), Quick(**held, seed=s)) for s in (0, 0, 1)]
    first, again, other = ([*p.card.seeds["shot_rows"]["toy"]] for p in few)
    rows = [json.loads(line) for line in Path(toy_task.dataset.train).read_text().splitlines()]
    assert len(set(first)) == 8
    assert sum(rows[number - 1]["label"] for number in first) == 4  # rows are numbered from one
    assert first == again != other
    assert few[0].card.scores[0]["examples"] == 8


def test_adapting_never_ends_below_its_start(source, toy_task, tmp_path):
    # Validation rows with the labels the other way round: whatever is learnt makes them worse.
    write_rows(tmp_path / "toy.validation.jsonl", toy_rows("bad", "good", 16, start=100))
    prompt = adapt(source, toy_task, trained_backbone(), Quick(steps=24), out=tmp_path / "run")
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    seen = [line["validation"] for line in lines if "validation" in line]
    assert seen[-1] < seen[0]
    assert prompt.card.scores[0]["value"] == max(seen)


def test_a_teacher_serves_as_a_source(toy_tasks, toy_task):
    teacher = teach(toy_tasks[0], trained_backbone(), TeachConfig(prompt_length=4, steps=0))
    prompt = adapt(teacher, toy_task, trained_backbone(), Quick(steps=0))
    assert torch.equal(prompt.collapse(), teacher.collapse())
    assert (prompt.card.stage, prompt.card.sources) == ("target", ("mood",))


def test_a_source_of_another_backbone_is_refused(source, toy_task):
    with pytest.raises(BackboneMismatch, match=r"mood, speed, colour was trained for tiny-t5, .* got tiny-gpt2\."):
        adapt(source, toy_task, make_backbone("gpt2"), Quick())


def test_a_larger_group_than_the_batch_still_sees_every_task(tmp_path, toy_tasks):
    source = untrained_source(toy_tasks[:2])
    group = [make_task(tmp_path, f"g{n}") for n in range(3)]
    before = start(source, group, "mean-vectors")
    prompt = adapt(source, group, trained_backbone(), Quick(batch_size=2, train="task-vectors"))
    assert all(not torch.equal(a, b) for a, b in zip(prompt.u, before.u, strict=True))
