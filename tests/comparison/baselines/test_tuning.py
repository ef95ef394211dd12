"""Training a baseline on a real tiny model: it learns, goes on where it was killed, and leaves all else alone."""

import copy
import json

import pytest
import torch

from mptune.answers.evaluation import answer_rows
from mptune.answers.metrics import score
from mptune.comparison.baselines import weights
from mptune.comparison.baselines.attempt import tune_attempt
from mptune.comparison.baselines.dept import tune_dept
from mptune.comparison.config import AttemptConfig, DeptConfig
from mptune.config import EvaluateConfig, WeightsConfig
from mptune.errors import ResumeError
from mptune.model.backbone import Backbone
from mptune.stages import training
from mptune.stages.weights import fine_tuning, tune_weights
from mptune.tasks.data import TaskRows
from support.toys import toy_rows, write_rows
from support.trained import trained_backbone

pytestmark = pytest.mark.slow  # many small trainings

# Rates at which each kind learns the toy task in a few steps.
RATES = {"fine-tuning": 3e-3, "bitfit": 0.03, "adapters": 0.01, "lora": 0.01, "ia3": 0.1, "attempt": 0.3, "dept": 0.3}
KINDS = tuple(RATES)
LENGTHS = {"attempt": 4, "dept": 4}


def some_sources(seed=0):
    """Prompts of three source tasks, without the time it takes to teach them."""
    rows = torch.randint(400, (3, 4), generator=torch.Generator().manual_seed(seed))
    return trained_backbone().embeddings[rows].clone()


def tuned(kind, tasks, *, backbone=None, out=None, sources=None, **config):
    values = {"steps": 8, "validate_every": 2, "save_every": 2, "lr": RATES[kind], **config}
    backbone = backbone or trained_backbone()
    if kind == "attempt":
        sources = some_sources() if sources is None else sources
        return tune_attempt(sources, tasks[0], backbone, AttemptConfig(projection=8, **values), out=out)
    if kind == "dept":
        return tune_dept(tasks[0], backbone, DeptConfig(prompt_length=4, rank=4, **values), out=out)
    change = getattr(weights, kind.replace("-", "_"), fine_tuning)
    return tune_weights(change, tasks, backbone, WeightsConfig(rank=4, reduction=4, **values), out=out)


def accuracy(found, task, kind="fine-tuning"):
    length, config = LENGTHS.get(kind, 0), EvaluateConfig()
    examples, answers = answer_rows(found.reader, length, TaskRows(task), found.backbone, "test", config)
    return score(task, "test", examples, answers.texts)[0].value


def numbers(found):
    return {name: parameter.detach().clone() for name, parameter in found.reader.named_parameters()}


def same(first, second):
    one, other = numbers(first), numbers(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def state_of(backbone):
    return {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_rises_above_chance_and_its_loss_falls(toy_task, tmp_path, kind):
    # The bare backbone says no to everything: right on half of the rows.
    found = tuned(kind, [toy_task], steps=24, validate_every=8, out=tmp_path / "run")
    assert accuracy(found, toy_task, kind) >= 75
    losses = [line["validation_loss"] for line in found.metrics if "validation_loss" in line]
    assert min(losses) < losses[0] / 2


@pytest.mark.parametrize("kind", KINDS)
def test_what_learns_is_what_is_counted_and_all_else_keeps_its_bits(toy_task, kind):
    backbone = trained_backbone()
    before = state_of(backbone)
    found, start = (tuned(kind, [toy_task], steps=steps, validation_shots=0) for steps in (4, 0))
    after = backbone.model.state_dict()
    assert after.keys() == before.keys(), "a layer was put into the caller's model"
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(p.requires_grad for p in backbone.model.parameters())
    assert not any(module._forward_hooks for module in backbone.model.modules())
    moved = {name for name, p in numbers(found).items() if not torch.equal(p, numbers(start)[name])}
    assert moved == numbers(found).keys()
    assert found.parameters == sum(p.numel() for p in numbers(start).values())
    learnt = {id(parameter) for parameter in found.reader.parameters()}
    for name, parameter in found.backbone.model.named_parameters():
        if id(parameter) not in learnt:
            assert torch.equal(parameter, before[name.replace(".base_layer", "")]), name
    assert (found.backbone is backbone) == (kind in LENGTHS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_killed_ends_with_the_same_numbers(toy_task, tmp_path, monkeypatch, kind):
    out = tmp_path / "run"
    whole = tuned(kind, [toy_task], out=tmp_path / "whole", dropout=True)
    forward, taken = Backbone.__call__, []

    def dying(self, *args):
        if torch.is_grad_enabled():
            taken.append(True)
            if len(taken) == 6:
                raise RuntimeError("killed")
        return forward(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "__call__", dying)
        with pytest.raises(RuntimeError, match="killed"):
            tuned(kind, [toy_task], out=out, dropout=True)
    assert (tmp_path / "run.partial" / "state.safetensors").is_file()
    steps, step = [], torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *a, **kw: steps.append(True) or step(*a, **kw))
    torch.manual_seed(99)  # whatever state the new process's generator is in
    again = tuned(kind, [toy_task], out=out, dropout=True)
    assert len(steps) == 4, "the state after four of eight steps was taken up"
    assert same(again, whole)
    assert again.metrics == whole.metrics
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == []


def test_metrics_are_those_of_every_validation_and_none_are_kept_without_a_folder(toy_task, tmp_path):
    found = tuned("lora", [toy_task], steps=6, out=tmp_path / "run")
    assert [line["step"] for line in found.metrics if "validation" in line] == [0, 2, 4, 6]
    assert [line["step"] for line in found.metrics if "loss" in line] == [2, 4, 6]
    assert tuned("lora", [toy_task], steps=6).metrics == ()
    assert not list(tmp_path.glob("run*"))


@pytest.mark.parametrize("kind", ["fine-tuning", "lora", "dept"])
def test_the_best_of_the_validated_states_is_kept_not_the_last(toy_task, tmp_path, kind):
    # Validation rows with the labels the other way round: whatever is learnt makes them worse.
    write_rows(tmp_path / "toy.validation.jsonl", toy_rows("bad", "good", 16, start=100))
    found = tuned(kind, [toy_task], steps=24, validate_every=8, out=tmp_path / "run")
    seen = [line["validation"] for line in found.metrics if "validation" in line]
    assert found.reader.card.scores[0]["value"] == seen[0] > seen[-1]
    assert same(found, tuned(kind, [toy_task], steps=0))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(toy_task, kind):
    for number, (seed, equal) in enumerate([(1, True), (2, False)]):
        torch.manual_seed(number)
        first = tuned(kind, [toy_task], steps=2, seed=1, validation_shots=0)
        torch.manual_seed(number + 10)
        assert same(first, tuned(kind, [toy_task], steps=2, seed=seed, validation_shots=0)) == equal


def test_several_tasks_share_one_model(toy_tasks):
    found = tuned("fine-tuning", toy_tasks, steps=36, validate_every=12, batch_size=12)
    assert [task.name for task in found.reader.card.tasks] == ["mood", "speed", "colour"]
    assert [score["task"] for score in found.reader.card.scores] == ["mood", "speed", "colour"]
    assert found.reader.collapse() == [found.reader] * 3
    assert all(accuracy(found, task) >= 70 for task in toy_tasks)


def test_every_task_of_a_group_stands_in_every_batch(toy_tasks, monkeypatch):
    collate, seen = training.collate, []

    def watched(picks, *given):
        seen.append(sorted(task for task, _ in picks))
        return collate(picks, *given)

    monkeypatch.setattr(training, "collate", watched)
    tuned("bitfit", toy_tasks, steps=2, batch_size=6)
    assert seen == [[0, 0, 1, 1, 2, 2]] * 2


def test_epochs_count_the_rows_of_all_tasks(toy_tasks, tmp_path):
    found = tuned("ia3", toy_tasks, epochs=0.5, batch_size=7, validate_every=100, out=tmp_path / "run")
    assert found.metrics[-1]["step"] == 11  # half of three times 48 rows, seven at a time


@pytest.mark.parametrize("kind", ["fine-tuning", "adapters", "lora", "attempt", "dept"])
def test_what_learns_beside_a_bfloat16_backbone_is_float32(toy_task, kind):
    trained = trained_backbone()
    config = trained.config.model_copy(update={"dtype": "bfloat16"})
    low = Backbone(copy.deepcopy(trained.model).bfloat16(), trained.tokenizer, config)
    found = tuned(kind, [toy_task], backbone=low, steps=24, validate_every=8)
    assert {p.dtype for p in found.reader.parameters()} == {torch.float32}
    assert {p.dtype for p in low.model.parameters()} == {torch.bfloat16}
    assert accuracy(found, toy_task, kind) >= 75


def test_attempt_trains_prompt_and_attention_at_rates_of_their_own(toy_task, monkeypatch):
    rates, step = [], torch.optim.AdamW.step

    def recorded(self, *args, **kw):
        rates.append([(group["lr"], len(group["params"])) for group in self.param_groups])
        return step(self, *args, **kw)

    monkeypatch.setattr(torch.optim.AdamW, "step", recorded)
    unit = trained_backbone().embedding_rms
    common = {"steps": 1, "warmup": 1.0, "validation_shots": 0}
    tuned("attempt", [toy_task], lr=0.4, attention_lr=0.05, **common)
    tuned("dept", [toy_task], lr=0.4, low_rank_lr=0.002, **common)
    assert rates == [[(pytest.approx(0.4 * unit), 1), (0.05, 4)], [(pytest.approx(0.4 * unit), 1), (0.002, 2)]]


def test_an_unfinished_run_from_other_sources_is_refused(toy_task, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "set_dropout", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tuned("attempt", [toy_task], out=tmp_path / "run")
    identity = json.loads((tmp_path / "run.partial" / "config.json").read_text())["identity"]
    assert identity["attempt"]["projection"] == 8
    with pytest.raises(ResumeError, match=r"run\.partial is an unfinished run with read = \[\"\w+\"\], and now it is"):
        tuned("attempt", [toy_task], sources=some_sources(1), out=tmp_path / "run")
