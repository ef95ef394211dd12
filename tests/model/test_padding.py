"""What all rows of a batch begin with is read once, and they are answered as if each had read it."""

from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mptune.model import backbone as module
from mptune.model import prefixes
from mptune.model.batch import IGNORE, Batch
from mptune.model.encoding import pad
from mptune.model.padding import shared_start
from support.models import batch_of, make_backbone

START = "what is it , true or false , good or bad , yes or no : "
TEXTS = [START + text for text in ("the sky is blue", "a cat sat on mat and the dog ran fast", "red", "one two")]


def of_rows(rows):
    """The batch of some token ids, padded on the left."""
    ids, mask = pad(rows, 0, left=True), pad([[1] * len(row) for row in rows], 0, left=True)
    return Batch.of_tasks([0] * len(rows), ids, mask, torch.zeros(len(rows), 1, dtype=torch.long))


@given(
    start=st.lists(st.integers(1, 3), max_size=6),
    ends=st.lists(st.lists(st.integers(1, 3), max_size=5), min_size=1, max_size=4),
)
@example(start=[1], ends=[[1, 2, 2], [2, 2, 2]])
@settings(max_examples=200, deadline=None)
def test_start_and_rest_are_the_rows_and_no_longer_start_would_do(start, ends):
    rows = [[*start, *end] or [1] for end in ends]
    first, rest = shared_start(of_rows(rows))
    count = first.shape[1]
    left = [ids[mask.bool()].tolist() for ids, mask in zip(rest.input_ids, rest.mask, strict=True)]
    assert [[*first[0].tolist(), *end] for end in left] == rows
    assert all(left)  # a token at least
    more = {tuple(row[: count + 1]) for row in rows}
    assert len(more) > 1 or min(map(len, rows)) == count + 1
    assert rest.mask.tolist() == [sorted(row) for row in rest.mask.tolist()]  # padding on the left alone


def fed(backbone, monkeypatch):
    """How many tokens go through the model: rows times length of each pass."""
    counts, forward = [], backbone.model.forward

    def counting(*args, **given):
        counts.append(given["inputs_embeds"].shape[0] * given["inputs_embeds"].shape[1])
        return forward(*args, **given)

    monkeypatch.setattr(backbone.model, "forward", counting)
    return counts


@pytest.mark.parametrize("length", [0, 3])
def test_rows_that_begin_alike_are_answered_as_each_alone_and_read_it_once(length, monkeypatch):
    backbone = make_backbone("llama")
    monkeypatch.setattr(module, "PASS_COST", 20)
    monkeypatch.setattr(prefixes, "PASS_COST", 20)
    prompts = torch.randn(1, length, backbone.width, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = ["yes", "not very good", "no", "maybe"]
    rows = zip(TEXTS, targets, strict=True)
    alone = [backbone(prompts, batch_of(backbone, [text], [target], [0])).logits[0] for text, target in rows]
    counts = fed(backbone, monkeypatch)
    batch = batch_of(backbone, TEXTS, targets, [0] * 4)
    together = backbone(prompts, batch).logits
    for row, logits in enumerate(alone):
        torch.testing.assert_close(together[row, : len(logits)], logits, atol=1e-4, rtol=1e-4)
    whole = batch.input_ids.numel() + 4 * (length + batch.labels.shape[1])
    assert sum(counts) < 0.7 * whole


def test_a_prompt_gets_the_same_gradient_where_rows_begin_alike(monkeypatch):
    backbone = make_backbone("llama")
    batch = batch_of(backbone, TEXTS, ["yes", "no", "no", "maybe"], [0] * 4)
    found = []
    for cost in (20, 10**6):
        monkeypatch.setattr(module, "PASS_COST", cost)
        monkeypatch.setattr(prefixes, "PASS_COST", cost)
        prompts = torch.randn(1, 3, backbone.width, generator=torch.Generator().manual_seed(0)).requires_grad_()
        backbone(prompts, batch).logits[batch.labels != IGNORE].logsumexp(-1).sum().backward()
        found.append(prompts.grad)
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


def test_rows_of_several_tasks_and_texts_with_something_added_are_read_whole(monkeypatch):
    backbone = make_backbone("llama")
    monkeypatch.setattr(module, "PASS_COST", 1)
    monkeypatch.setattr(prefixes, "PASS_COST", 1)
    batch = batch_of(backbone, TEXTS, ["yes", "no", "no", "maybe"], [0, 0, 1, 1])
    prompts = torch.randn(2, 2, backbone.width, generator=torch.Generator().manual_seed(0))
    assert backbone._begun_alike(prompts, batch)[1] is batch
    one = batch_of(backbone, TEXTS, ["yes", "no", "no", "maybe"], [0] * 4)
    added = torch.randn(*one.input_ids.shape, backbone.width, generator=torch.Generator().manual_seed(1))
    both = backbone(prompts[:1], replace(one, added=added)).logits
    for row in range(4):
        part, _ = replace(one, added=added).only([row], left=True)
        alone = backbone(prompts[:1], part).logits[0]
        torch.testing.assert_close(both[row, : len(alone)], alone, atol=1e-4, rtol=1e-4)


def test_states_of_a_text_are_those_of_all_its_tokens(monkeypatch):
    backbone = make_backbone("llama")
    batch = batch_of(backbone, TEXTS, ["yes", "no", "no", "maybe"], [0] * 4)
    prompts, found = torch.zeros(1, 2, backbone.width), []
    for cost in (1, 10**6):
        monkeypatch.setattr(module, "PASS_COST", cost)
        monkeypatch.setattr(prefixes, "PASS_COST", cost)
        found.append(backbone(prompts, batch, hidden_layers=(-1,)).hidden[0] * batch.mask[..., None])
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)
