"""DePT against its equation, worked out token by token."""

import torch
from transformers import T5Config, T5ForConditionalGeneration

from mptune.comparison.baselines.dept import Dept
from mptune.comparison.config import DeptConfig
from mptune.config import BackboneConfig
from mptune.model.backbone import Backbone
from mptune.stages.losses import task_loss
from support.models import batch_of, make_tokenizer, rms


def some_dept(backbone, *, moved=True, **config):
    """DePT that is not at its start, where the update would be zero whatever the equation."""
    random = torch.Generator().manual_seed(0)
    chosen = DeptConfig(**{"prompt_length": 3, "rank": 4, "max_input_tokens": 40, "scale": 2.0, **config})
    dept = Dept(backbone, chosen, chosen.max_input_tokens, random)
    if moved:
        with torch.no_grad():
            dept.b.copy_(torch.randn(dept.b.shape, generator=random))
    return dept


@torch.no_grad()
def by_hand(dept, backbone, batch):
    """Return what is added to each token: ``s / √r · A_t B`` in units of the embeddings' RMS, where t counts tokens."""
    added = torch.zeros(*batch.mask.shape, backbone.width)
    unit = rms(backbone.embeddings)
    for row, mask in enumerate(batch.mask.tolist()):
        position = 0
        for place, counts in enumerate(mask):
            if counts:
                for r in range(4):
                    added[row, place] += 2.0 / 4**0.5 * unit * dept.a[position, r] * dept.b[r]
                position += 1
    return added


def test_each_token_is_moved_by_the_row_of_its_position_and_padding_is_not(any_backbone):
    batch, dept = batch_of(any_backbone), some_dept(any_backbone)
    prompts, read = dept(batch)
    torch.testing.assert_close(read.added, by_hand(dept, any_backbone, batch), atol=1e-5, rtol=1e-5)
    assert (read.added[batch.mask == 0] == 0).all()
    assert (batch.mask == 0).any()
    assert torch.equal(prompts, dept.prompt[None])
    assert read.task_ids.tolist() == [0, 0], "one prompt stands before all texts"
    assert torch.equal(read.input_ids, batch.input_ids)


def test_padding_changes_no_answer(any_backbone):
    # On the left of a decoder-only model's text, a token's place in the batch is not its position.
    dept = some_dept(any_backbone)
    together = any_backbone(*dept(batch_of(any_backbone))).logits[0]
    alone = any_backbone(*dept(batch_of(any_backbone, ["the sky is blue"], ["yes"]))).logits[0]
    torch.testing.assert_close(together[: len(alone)], alone, atol=1e-4, rtol=1e-4)


def test_it_starts_at_a_vocabulary_sample_alone(any_backbone):
    batch, dept = batch_of(any_backbone), some_dept(any_backbone, moved=False)
    for soft_token in dept.prompt:
        assert (any_backbone.embeddings == soft_token).all(1).any()
    plain = any_backbone(dept.prompt.expand(2, 3, any_backbone.width), batch).logits
    assert torch.equal(any_backbone(*dept(batch)).logits, plain)


def test_prompt_and_both_factors_learn(any_backbone):
    batch, dept = batch_of(any_backbone), some_dept(any_backbone)
    task_loss(any_backbone(*dept(batch)).logits, batch.labels).backward()
    assert all(p.grad.abs().max() > 0 for p in (dept.prompt, dept.a, dept.b))
    longest = int(batch.mask.sum(1).max())
    assert (dept.a.grad[longest:] == 0).all(), "no text is so long"
    assert all(p.grad is None for p in any_backbone.model.parameters())


def test_at_the_start_the_second_factor_alone_can_learn(backbone):
    batch, dept = batch_of(backbone), some_dept(backbone, moved=False)
    task_loss(backbone(*dept(batch)).logits, batch.labels).backward()
    assert (dept.a.grad == 0).all()
    assert dept.b.grad.abs().max() > 0


def test_tokens_behind_the_last_position_that_was_learnt_are_left_alone(any_backbone):
    dept, batch = some_dept(any_backbone, max_input_tokens=2), batch_of(any_backbone)
    moved = (dept(batch)[1].added != 0).any(-1)
    assert moved.tolist() == ((batch.mask == 1) & (batch.mask.cumsum(1) <= 2)).tolist()


def test_one_scale_serves_models_of_different_embeddings(backbone):
    small = some_dept(backbone)(batch_of(backbone))[1].added
    with torch.no_grad():
        backbone.model.get_input_embeddings().weight *= 5
    torch.testing.assert_close(some_dept(backbone)(batch_of(backbone))[1].added, 5 * small)


def test_it_trains_as_many_numbers_as_a_prompt_of_a_hundred_by_default():
    width = 768
    shapes = T5Config(vocab_size=400, d_model=width, d_ff=8, num_layers=1, num_heads=1, decoder_start_token_id=0)
    named = BackboneConfig(name="wide", device="cpu")
    backbone = Backbone(T5ForConditionalGeneration(shapes), make_tokenizer(adds_eos=True), named)
    dept = Dept(backbone, DeptConfig(), 256, torch.Generator())
    count = sum(p.numel() for p in dept.parameters())
    assert count == 40 * width + 256 * 45 + 45 * width == 100 * width == 76_800


def test_it_is_a_function_of_its_generator(backbone):
    first, again, other = (Dept(backbone, DeptConfig(), 256, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.prompt, other.prompt)
    assert not torch.equal(first.a, other.a)
