"""Stage 1 on a real tiny model: it learns, leaves the model alone, and is a function of its seed."""

import hashlib
import json
from functools import partial

import pytest
import torch

from mptune.answers.evaluation import evaluate
from mptune.config import TeachConfig
from mptune.errors import DataError
from mptune.stages.teachers import teach
from support.toys import make_task, toy_rows, write_rows
from support.trained import trained_backbone

Quick = partial(TeachConfig, prompt_length=4, steps=12, validate_every=4, lr=0.3)


def sha256(folder):
    return hashlib.sha256((folder / "prompt.safetensors").read_bytes()).hexdigest()


def metrics(folder, key):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line[key] for line in lines if key in line}


def test_a_teacher_rises_above_chance_and_its_loss_falls(toy_task, tmp_path):
    backbone = trained_backbone()
    prompt = teach(toy_task, backbone, Quick(steps=24), out=tmp_path / "run")
    [score] = evaluate(prompt, toy_task, backbone, split="test")
    assert evaluate(None, toy_task, backbone, split="test")[0].value == 50
    assert score.value >= 75
    losses = metrics(tmp_path / "run", "validation_loss")
    assert losses[24] < losses[0] / 2


def test_a_teacher_keeps_its_task_vectors_at_one(toy_task):
    prompt = teach(toy_task, trained_backbone(), Quick())
    assert torch.equal(prompt.collapse()[0], prompt.shared)
    assert (prompt.task_vectors.u == 1).all()
    assert (prompt.task_vectors.v == 1).all()


@pytest.mark.parametrize("dropout", [False, True])
def test_teaching_leaves_the_backbone_bit_identical_and_in_evaluation_mode(toy_task, dropout):
    backbone = trained_backbone()
    before = {name: p.clone() for name, p in backbone.model.state_dict().items()}
    prompt = teach(toy_task, backbone, Quick(dropout=dropout))
    assert prompt.card.scores[0]["value"] > 50, "it did learn"
    for name, p in backbone.model.state_dict().items():
        assert torch.equal(p, before[name]), name
    assert all(p.grad is None and not p.requires_grad for p in backbone.model.parameters())
    assert not backbone.model.training


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(toy_task, tmp_path):
    backbone = trained_backbone()
    for name, config in {"a": Quick(seed=1), "b": Quick(seed=1), "c": Quick(seed=2)}.items():
        torch.manual_seed(len(name) + ord(name))  # whatever state the caller's generator is in
        teach(toy_task, backbone, config, out=tmp_path / name)
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b")
    assert sha256(tmp_path / "a") != sha256(tmp_path / "c")


def test_dropout_changes_what_is_learnt_and_is_a_function_of_the_seed_too(toy_task):
    backbone = trained_backbone()
    off, on, again = (teach(toy_task, backbone, Quick(dropout=d)).shared for d in (False, True, True))
    assert torch.equal(on, again)
    assert not torch.equal(on, off)


def test_the_best_of_the_validated_prompts_is_kept_not_the_last(toy_task, tmp_path):
    # Validation rows with the labels the other way round: whatever is learnt makes them worse.
    write_rows(tmp_path / "toy.validation.jsonl", toy_rows("bad", "good", 16, start=100))
    prompt = teach(toy_task, trained_backbone(), Quick(), out=tmp_path / "run")
    seen = metrics(tmp_path / "run", "validation")
    assert prompt.card.scores[0]["value"] == seen[0] > seen[12]
    assert torch.equal(prompt.shared, teach(toy_task, trained_backbone(), Quick(steps=0)).shared)


def test_no_steps_return_the_vocabulary_sample(toy_task):
    backbone = trained_backbone()
    prompt = teach(toy_task, backbone, Quick(steps=0))
    for soft_token in prompt.shared:
        assert (backbone.embeddings == soft_token).all(1).any()


def test_an_empty_prompt_answers_like_the_bare_backbone(toy_task):
    backbone = trained_backbone()
    prompt = teach(toy_task, backbone, Quick(prompt_length=0, steps=2))
    assert prompt.collapse().shape == (1, 0, backbone.width)
    assert evaluate(prompt, toy_task, backbone) == evaluate(None, toy_task, backbone)


def test_the_card_says_where_the_teacher_comes_from(toy_task):
    backbone = trained_backbone()
    card = teach(toy_task, backbone, Quick(seed=3)).card
    assert (card.stage, card.backbone, card.fingerprint) == ("teacher", "tiny-t5", backbone.fingerprint)
    assert card.config == Quick(seed=3).model_dump(mode="json")
    assert card.seeds["seed"] == 3
    assert card.tasks[0].name == "toy"
    assert card.tasks[0].dataset is None
    assert card.scores[0]["metric"] == "accuracy"
    assert card.scores[0]["examples"] == 16


def test_rows_that_do_not_fit_are_refused_before_any_training(tmp_path):
    task = make_task(tmp_path, "toy", verbalizer={"0": "no", "2": "yes"})
    with pytest.raises(DataError, match=r"the label 1 is not in the verbalizer \(0, 2\)"):
        teach(task, trained_backbone(), Quick(), out=tmp_path / "run")
    assert not list(tmp_path.glob("run*"))
