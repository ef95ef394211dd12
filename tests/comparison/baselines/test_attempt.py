"""ATTEMPT against its equations, worked out for one text and one prompt at a time."""

import math

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from mptune.comparison.baselines.attempt import Attempt
from mptune.comparison.config import AttemptConfig
from mptune.config import BackboneConfig
from mptune.model.backbone import Backbone
from mptune.stages.losses import task_loss
from support.models import batch_of, make_backbone, make_tokenizer


def some_attempt(backbone, count=3, length=5, scrambled=True, **config):
    random = torch.Generator().manual_seed(0)
    sources = torch.randn(count, length, backbone.width, generator=random)
    attempt = Attempt(sources, backbone, AttemptConfig(**{"projection": 7, **config}), random)
    if scrambled:  # a norm that starts at one and zero would hide a defect
        with torch.no_grad():
            for parameter in attempt.norm.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=random))
    return attempt


@torch.no_grad()
def by_hand(attempt, backbone, batch):
    """Return the prompt of each text, and the weights of the candidates."""
    sources = dict(attempt.named_buffers())["sources"]
    candidates = [*sources, attempt.target]
    table = backbone.embeddings
    prompts, weights = [], []
    for ids, mask in zip(batch.input_ids, batch.mask, strict=True):
        tokens = [table[token] for token, counts in zip(ids, mask, strict=True) if counts]
        text = torch.tensor([max(float(token[d]) for token in tokens) for d in range(backbone.width)])
        inner = attempt.down.weight @ text
        outer = attempt.up.weight @ (inner * inner.sigmoid())
        query = (outer - outer.mean()) / (outer.var(correction=0) + 1e-5).sqrt()
        query = query * attempt.norm.weight + attempt.norm.bias
        said = []
        for prompt in candidates:
            key = torch.tensor([max(float(soft_token[d]) for soft_token in prompt) for d in range(backbone.width)])
            said.append(math.exp(float(query @ key) / attempt.temperature))
        shares = [s / sum(said) for s in said]
        weights.append(shares)
        prompts.append(attempt.target + sum(share * prompt for share, prompt in zip(shares, candidates, strict=True)))
    return torch.stack(prompts), torch.tensor(weights)


def test_every_text_gets_the_target_plus_a_mixture_of_sources_and_target(any_backbone):
    # One text is shorter: decoder-only models have its padding on the left, encoder-decoders on the right.
    batch, attempt = batch_of(any_backbone).of_one_prompt(), some_attempt(any_backbone, temperature=2.0)
    assert batch.mask.min() == 0
    expected, weights = by_hand(attempt, any_backbone, batch)
    prompts, read = attempt(batch)
    torch.testing.assert_close(prompts, expected, atol=1e-5, rtol=1e-5)
    assert read.task_ids.tolist() == [0, 1], "two texts of one task have a prompt each"
    assert (read.input_ids is batch.input_ids, read.added) == (True, None)
    assert weights.shape == (2, 4)
    assert weights.std(1).min() > 0.05, "even weights would hide which text and prompts they belong to"
    assert not torch.allclose(*weights, atol=0.02)


def test_the_default_temperature_is_e_times_the_width(backbone):
    attempt = some_attempt(backbone)
    assert attempt.temperature == pytest.approx(2.718281828 * 16)
    batch = batch_of(backbone)
    torch.testing.assert_close(attempt(batch)[0], by_hand(attempt, backbone, batch)[0], atol=1e-5, rtol=1e-5)


def test_a_text_takes_the_same_mixture_beside_a_longer_one(any_backbone):
    attempt = some_attempt(any_backbone, temperature=2.0)
    together = attempt(batch_of(any_backbone))[0]
    alone = attempt(batch_of(any_backbone, ["the sky is blue"], ["yes"]))[0]
    torch.testing.assert_close(together[:1], alone)


def test_the_target_and_the_attention_learn_and_the_sources_do_not(any_backbone):
    attempt, batch = some_attempt(any_backbone), batch_of(any_backbone)
    task_loss(any_backbone(*attempt(batch)).logits, batch.labels).backward()
    learnt = {"target", "down.weight", "up.weight", "norm.weight", "norm.bias"}
    assert {name for name, p in attempt.named_parameters() if p.grad.abs().max() > 0} == learnt
    sources = dict(attempt.named_buffers())["sources"]
    assert (sources.requires_grad, sources.grad) == (False, None)
    assert "sources" not in attempt.state_dict(), "a task stores what it learnt, not what all share"
    assert all(p.grad is None for p in any_backbone.model.parameters())


def test_the_target_starts_at_a_vocabulary_sample_of_its_seed(backbone):
    first, again = (some_attempt(backbone, scrambled=False) for _ in "ab")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    for soft_token in first.target:
        assert (backbone.embeddings == soft_token).all(1).any()


def test_it_trains_231936_numbers_for_a_hundred_soft_tokens_as_wide_as_t5_base():
    width, length, inner = 768, 100, 100
    shapes = T5Config(vocab_size=400, d_model=width, d_ff=8, num_layers=1, num_heads=1, decoder_start_token_id=0)
    named = BackboneConfig(name="wide", device="cpu")
    backbone = Backbone(T5ForConditionalGeneration(shapes), make_tokenizer(adds_eos=True), named)
    attempt = Attempt(torch.zeros(6, length, width), backbone, AttemptConfig(), torch.Generator())
    count = sum(p.numel() for p in attempt.parameters())
    assert count == length * width + 2 * width * inner + 2 * width == 231_936


def test_what_the_caller_gave_as_sources_is_not_shared():
    backbone = make_backbone("t5")
    sources = torch.zeros(2, 5, backbone.width)
    attempt = Attempt(sources, backbone, AttemptConfig(), torch.Generator())
    sources += 1
    assert (dict(attempt.named_buffers())["sources"] == 0).all()
