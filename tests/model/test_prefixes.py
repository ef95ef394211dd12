"""Prompts that a decoder-only model has read: kept within a budget, and never another answer for it."""

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from mptune.config import BackboneConfig
from mptune.model import prefixes
from mptune.model.backbone import Backbone
from mptune.model.chat import chat_of
from mptune.model.encoding import encode_targets
from mptune.model.scoring import label_scores
from mptune.model.stepwise import Draft, Writer
from support.chat import talking
from support.models import batch_of, choosing, make_backbone, make_tokenizer, some_prompts

TEXTS = ["the sky", "bad", "the dog ran fast and slow", "a cat sat on mat and was very good"]
TARGETS = ["yes", "no", "not very good", "yes"]
TASKS = [2, 5, 5, 7]
NEAR = 1e-4
PLENTY = 10**9


def read(backbone, monkeypatch):
    """How many prompts the model reads, call after call, from now."""
    counts, model = [], backbone.model
    reads = prefixes.Prefixes._read
    monkeypatch.setattr(
        prefixes.Prefixes, "_read", lambda self, prompts: counts.append(len(prompts)) or reads(self, prompts)
    )
    assert model is backbone.model
    return counts


@pytest.fixture(params=["gpt2", "llama"])
def decoder(request):
    return make_backbone(request.param)


def scores(backbone, prompts, texts=TEXTS, targets=TARGETS, tasks=TASKS):
    words = encode_targets(backbone, ["yes", "no", "not very good", "not good"], max_tokens=8)
    with torch.no_grad():
        return label_scores(
            backbone, prompts, choosing(batch_of(backbone, texts, targets, tasks), [words] * len(texts))
        )


def test_answers_behind_kept_prompts_are_those_of_a_model_that_keeps_nothing(decoder, monkeypatch):
    prompts = some_prompts(decoder, 3, 5)
    wanted = scores(decoder, prompts)
    decoder.prefixes.keep(PLENTY)
    counts = read(decoder, monkeypatch)
    for _ in range(2):
        torch.testing.assert_close(scores(decoder, prompts), wanted, atol=NEAR, rtol=0)
    assert counts == [3]  # once, and never again


def test_another_prompt_of_the_same_task_is_read_anew(decoder, monkeypatch):
    prompts = some_prompts(decoder, 3, 5)
    other = prompts.clone()
    other[1] += 0.5
    wanted = scores(decoder, other)
    decoder.prefixes.keep(PLENTY)
    scores(decoder, prompts)
    counts = read(decoder, monkeypatch)
    torch.testing.assert_close(scores(decoder, other), wanted, atol=NEAR, rtol=0)
    assert counts == [1]


def test_what_nobody_has_asked_for_longest_makes_room(decoder, monkeypatch):
    prompts = some_prompts(decoder, 3, 5)
    decoder.prefixes.keep(PLENTY)
    scores(decoder, prompts[:1], TEXTS[:1], TARGETS[:1], [0])
    size = decoder.prefixes._held
    decoder.prefixes.keep(2 * size)

    def asked(number):
        scores(decoder, prompts[number][None], TEXTS[:1], TARGETS[:1], [0])

    asked(1)
    asked(0)
    asked(2)  # 1 goes
    assert decoder.prefixes._held == 2 * size
    counts = read(decoder, monkeypatch)
    asked(0)
    asked(2)
    assert counts == []
    asked(1)
    assert counts == [1]


def test_equal_prompts_of_several_tasks_are_read_and_counted_once(decoder, monkeypatch):
    prompts = some_prompts(decoder, 3, 5)
    prompts[1] = prompts[0]
    wanted = scores(decoder, prompts)
    decoder.prefixes.keep(PLENTY)
    counts = read(decoder, monkeypatch)
    torch.testing.assert_close(scores(decoder, prompts), wanted, atol=NEAR, rtol=0)
    assert counts == [2]
    assert decoder.prefixes._held == sum(each.size for each in decoder.prefixes._kept.values())


def test_a_batch_of_more_prompts_than_have_room_is_answered_all_the_same(decoder):
    prompts = some_prompts(decoder, 3, 5)
    wanted = scores(decoder, prompts)
    decoder.prefixes.keep(1)
    torch.testing.assert_close(scores(decoder, prompts), wanted, atol=NEAR, rtol=0)
    assert decoder.prefixes._held == 0
    assert not decoder.prefixes._kept


def test_what_is_kept_holds_no_more_than_it_counts(decoder):
    """A row of a larger tensor would keep all of that."""
    decoder.prefixes.keep(PLENTY)
    scores(decoder, some_prompts(decoder, 3, 5))
    kept = [each for one in decoder.prefixes._kept.values() for each in (*one.keys, *one.values)]
    assert sum(each.untyped_storage().nbytes() for each in kept) == decoder.prefixes._held > 0


def test_texts_are_written_behind_kept_prompts_as_without(decoder, monkeypatch):
    prompts, batch = some_prompts(decoder, 3, 5), batch_of(decoder, TEXTS, TARGETS, TASKS)

    def written():
        lines = [Draft(6, frozenset()) for _ in TEXTS]
        writer = Writer(decoder)
        writer.join(prompts, batch, lines[:4])
        while writer.lines:
            writer.step()
        return [line.ids for line in lines]

    wanted = written()
    decoder.prefixes.keep(PLENTY)
    counts = read(decoder, monkeypatch)
    assert [written(), written()] == [wanted, wanted]
    assert counts == [3]


def test_what_a_chat_template_writes_before_a_prompt_is_kept_with_it(monkeypatch):
    from dataclasses import replace

    backbone = talking()
    chat = chat_of(backbone.tokenizer, "talker", "user")
    assert chat.before
    prompts, batch = some_prompts(backbone, 3, 5), batch_of(backbone, TEXTS, TARGETS, TASKS)
    wanted = backbone(prompts, replace(batch, chat=chat)).logits
    plain = backbone(prompts, batch).logits
    backbone.prefixes.keep(PLENTY)
    with torch.no_grad():
        for _ in range(2):
            found = backbone(prompts, replace(batch, chat=chat)).logits, backbone(prompts, batch).logits
            real = batch.labels != -100
            torch.testing.assert_close(found[0][real], wanted[real], atol=NEAR, rtol=0)
            torch.testing.assert_close(found[1][real], plain[real], atol=NEAR, rtol=0)


def test_prompts_that_learn_are_never_taken_from_what_is_kept(decoder, monkeypatch):
    decoder.prefixes.keep(PLENTY)
    prompts = some_prompts(decoder, 3, 5).requires_grad_()
    batch = batch_of(decoder, TEXTS, TARGETS, TASKS)
    decoder(prompts, batch).logits[batch.labels != -100].logsumexp(-1).sum().backward()
    assert float(prompts.grad.abs().min()) > 0
    assert not decoder.prefixes._kept


def test_a_row_without_a_token_goes_on_behind_its_prompt(decoder, monkeypatch):
    """And not behind the padding that would stand there."""
    prompts = some_prompts(decoder, 2, 5)
    texts, targets, tasks = ["", "bad and good"], ["yes", "no"], [0, 1]
    alone = [scores(decoder, prompts[n][None], [texts[n]], [targets[n]], [0])[0] for n in range(2)]
    decoder.prefixes.keep(PLENTY)
    torch.testing.assert_close(scores(decoder, prompts, texts, targets, tasks), torch.stack(alone), atol=NEAR, rtol=0)
    monkeypatch.setattr(prefixes, "PASS_COST", -1)
    decoder.prefixes.keep(0)
    torch.testing.assert_close(scores(decoder, prompts, texts, targets, tasks), torch.stack(alone), atol=NEAR, rtol=0)


def test_a_model_with_windows_keeps_nothing_and_answers():
    torch.manual_seed(0)
    sizes = dict(vocab_size=400, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                 num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3, bos_token_id=3,
                 eos_token_id=1, pad_token_id=0, sliding_window=4)  # fmt: skip
    model = MistralForCausalLM(MistralConfig(**sizes))
    backbone = Backbone(model, make_tokenizer(adds_eos=False), BackboneConfig(name="windows", device="cpu"))
    prompts = some_prompts(backbone, 3, 5)
    wanted = scores(backbone, prompts)
    backbone.prefixes.keep(PLENTY)
    torch.testing.assert_close(scores(backbone, prompts), wanted, atol=NEAR, rtol=0)
    assert not backbone.prefixes._kept
