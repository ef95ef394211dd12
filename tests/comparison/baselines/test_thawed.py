"""A copy of the backbone whose weights may learn, and input that is changed behind its embeddings."""

import copy
from dataclasses import replace

import pytest
import torch

from mptune.model import backbone as module
from mptune.model.backbone import Backbone
from mptune.model.batch import IGNORE, Batch
from mptune.model.scoring import generate, label_scores
from mptune.stages.losses import task_loss
from mptune.stages.weights import thawed
from support.models import FAMILIES, TARGETS, batch_of, choosing, exact_norms, make_backbone, some_prompts


def in_bfloat16(backbone):
    """The same backbone with weights in bfloat16, as an accelerator would hold it."""
    config = backbone.config.model_copy(update={"dtype": "bfloat16"})
    return Backbone(copy.deepcopy(backbone.model).bfloat16(), backbone.tokenizer, config)


def state_of(backbone):
    return {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}


# -- the copy ---------------------------------------------------------------------------------------------------------


def test_a_thawed_copy_answers_as_the_original(any_backbone):
    copied = thawed(any_backbone)
    batch, prompts = batch_of(any_backbone), some_prompts(any_backbone)
    counted = batch.labels != IGNORE
    got, own = (each(prompts, batch).logits[counted] for each in (copied, any_backbone))
    torch.testing.assert_close(got, own, atol=1e-5, rtol=1e-4)
    assert generate(copied, prompts, batch, 4) == generate(any_backbone, prompts, batch, 4)
    assert (copied.is_encoder_decoder, copied.positions) == (any_backbone.is_encoder_decoder, any_backbone.positions)


def test_nothing_of_a_copy_learns_until_it_is_asked_to(any_backbone):
    assert not any(p.requires_grad for p in thawed(any_backbone).model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_a_copy_learn_and_the_original_keeps_its_bits(family):
    backbone = make_backbone(family)
    before, copied = state_of(backbone), thawed(backbone)
    copied.model.requires_grad_(True)
    batch = batch_of(copied)
    task_loss(copied(some_prompts(copied), batch).logits, batch.labels).backward()
    moving = [p for p in copied.model.parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert len(moving) > 10, "T5's own forward pass has no gradients of weights"
    torch.optim.SGD(copied.model.parameters(), lr=1).step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.model.state_dict().items())
    assert not torch.equal(copied.embeddings, backbone.embeddings)
    assert not any(p.requires_grad for p in backbone.model.parameters())


def test_a_copy_is_the_same_model_to_a_prompt_whatever_it_learns(backbone):
    copied = thawed(backbone)
    with torch.no_grad():
        copied.model.get_input_embeddings().weight += 1
    assert copied.fingerprint == backbone.fingerprint
    assert Backbone(copied.model, copied.tokenizer, copied.config).fingerprint != backbone.fingerprint


@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_of_a_bfloat16_model_learns_in_float32_and_computes_in_bfloat16(family):
    low = in_bfloat16(make_backbone(family))
    copied = thawed(low)
    assert {p.dtype for p in copied.model.parameters()} == {torch.float32}
    assert {p.dtype for p in low.model.parameters()} == {torch.bfloat16}
    assert all(
        torch.equal(a, b.float()) for a, b in zip(copied.model.parameters(), low.model.parameters(), strict=True)
    )
    copied.model.requires_grad_(True)
    batch, prompts, computed = batch_of(copied), some_prompts(copied), []
    copied.model.get_output_embeddings().register_forward_hook(lambda *given: computed.append(given[-1].dtype))
    task_loss(copied(prompts, batch).logits, batch.labels).backward()
    assert set(computed) == {torch.bfloat16}
    assert {p.grad.dtype for p in copied.model.parameters() if p.grad is not None} == {torch.float32}
    assert len(generate(copied, prompts, batch, 3)) == 2


def test_a_copy_of_a_float32_model_computes_in_float32(backbone):
    assert thawed(backbone)(some_prompts(backbone), batch_of(backbone)).logits.dtype == torch.float32


# -- what is added to the embedded input ------------------------------------------------------------------------------


@pytest.fixture
def exact(any_backbone, monkeypatch) -> Backbone:
    """One backbone of every family in float64, where a difference is a defect and not rounding."""
    exact_norms(monkeypatch)
    any_backbone.model.double()
    return any_backbone


LONG = ["the sky is blue", "a cat sat on mat and the dog ran fast", "the dog"]


def read_otherwise(backbone):
    """A batch whose embeddings are moved onto those of another, and that other: both must read the same."""
    batch = batch_of(backbone, LONG, [*TARGETS, "no"])
    other = replace(batch, input_ids=torch.where(batch.mask == 1, batch.input_ids + 7, batch.input_ids))
    return replace(batch, added=backbone.embed(other.input_ids) - backbone.embed(batch.input_ids)), other


def test_embedded_is_what_the_first_layer_sees(any_backbone):
    batch = batch_of(any_backbone)
    torch.testing.assert_close(any_backbone.embed(batch.input_ids), any_backbone.embeddings[batch.input_ids])


@pytest.mark.parametrize("pass_cost", [0, 10**6], ids=["in groups of like lengths", "all at once"])
def test_what_is_added_moves_the_embedded_text(exact, monkeypatch, pass_cost):
    monkeypatch.setattr(module, "PASS_COST", pass_cost)
    moved, other = read_otherwise(exact)
    prompts, counted = some_prompts(exact, 3), moved.labels != IGNORE
    got, expected = exact(prompts, moved).logits[counted], exact(prompts, other).logits[counted]
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    plain = exact(prompts, replace(moved, added=None)).logits[counted]
    assert not torch.allclose(got, plain, atol=1e-3)


def test_label_words_are_scored_behind_the_moved_text(exact):
    moved, other = read_otherwise(exact)
    words = [[[5, 6, 1], [5, 7, 1]], [[8, 1], [9, 1]], [[5, 6, 1], [9, 4, 1], [9, 5, 1]]]  # one and several passes
    got, expected = (label_scores(exact, some_prompts(exact, 3), choosing(batch, words)) for batch in (moved, other))
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


# A random mT5 writes the same whatever it reads.
@pytest.mark.parametrize("any_backbone", [family for family in FAMILIES if family != "mt5"], indirect=True)
def test_text_is_generated_behind_the_moved_text(exact):
    moved, other = read_otherwise(exact)
    prompts = some_prompts(exact, 3, length=0)
    assert generate(exact, prompts, moved, 6) == generate(exact, prompts, other, 6)
    assert generate(exact, prompts, moved, 6) != generate(exact, prompts, replace(moved, added=None), 6)


def test_gradients_reach_what_is_added(any_backbone):
    batch = batch_of(any_backbone)
    added = torch.zeros(*batch.mask.shape, any_backbone.width, requires_grad=True)
    read = replace(batch, added=added)
    task_loss(any_backbone(some_prompts(any_backbone), read).logits, batch.labels).backward()
    assert (added.grad[batch.mask == 1].abs().amax(-1) > 0).all()
    assert (added.grad[batch.mask == 0] == 0).all()


@pytest.mark.parametrize("left", [False, True])
def test_some_rows_keep_what_is_added_to_them(left):
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]) if left else torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    ids, added = torch.arange(8).reshape(2, 4), torch.arange(8.0).reshape(2, 4, 1)
    whole = replace(Batch.of_tasks([4, 2], ids, mask, torch.zeros(2, 1, dtype=torch.long)), added=added)
    first, prompts = whole.only([0], left=left)
    assert first.input_ids.tolist() == ([[2, 3]] if left else [[0, 1]])
    assert torch.equal(first.added[..., 0], first.input_ids.float())
    assert (first.tasks, first.task_ids.tolist(), prompts) == ((4,), [0], [1])


def test_a_batch_goes_to_another_device_with_what_is_added_or_without_it(backbone):
    batch = batch_of(backbone)
    assert batch.to(torch.device("meta")).added is None
    moved = replace(batch, added=torch.zeros(*batch.mask.shape, backbone.width)).to(torch.device("meta"))
    assert {t.device.type for t in vars(moved).values() if isinstance(t, torch.Tensor)} == {"meta"}


@pytest.mark.parametrize("family", FAMILIES)
def test_long_batches_are_read_in_parts_and_again_with_the_same_logits_and_gradients(family, monkeypatch):
    backbone, again, read = make_backbone(family), module.checkpoint, []
    batch, prompts = batch_of(backbone), torch.zeros(2, 0, backbone.width)
    monkeypatch.setattr(module, "checkpoint", lambda *given, **how: read.append(0) or again(*given, **how))
    logits, gradients = [], []
    for most in (10_000, 6):
        copied = thawed(backbone)
        weight = next(copied.model.parameters()).requires_grad_(True)
        monkeypatch.setattr(module, "LONG_BATCH", most)
        logits.append(copied(prompts, batch).logits)
        gradients += torch.autograd.grad(task_loss(logits[-1], batch.labels), weight)
    counted = batch.labels != IGNORE
    torch.testing.assert_close(logits[1][counted], logits[0][counted], atol=1e-5, rtol=0)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-4)
    assert len(read) == 2
