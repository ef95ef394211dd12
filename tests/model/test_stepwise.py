"""Rows that are written step by step: as if each were alone, whoever joins and leaves meanwhile."""

import pytest
import torch

from mptune.model.scoring import write
from mptune.model.stepwise import Draft, Writer
from support.models import TEXTS, batch_of, make_backbone, some_prompts

MOST = 7


def line(backbone, most=MOST, **how):
    return Draft(most, frozenset({int(backbone.tokenizer.eos_token_id)}), **how)


def alone(backbone, prompt, text, most=MOST):
    """What `write` says of a row that is alone, without start, end and padding."""
    (ids,) = write(backbone, prompt[None], batch_of(backbone, [text], ["yes"]), most).tolist()
    ids = ids[1:] if backbone.is_encoder_decoder else ids
    end = int(backbone.tokenizer.eos_token_id)
    return ids[: ids.index(end)] if end in ids else ids


def test_rows_that_come_together_are_written_as_each_alone(exact):
    prompts, writer = some_prompts(exact), Writer(exact)
    lines = [line(exact) for _ in TEXTS]
    writer.join(prompts, batch_of(exact), lines)
    while writer.lines:
        writer.step()
    assert [each.ids for each in lines] == [alone(exact, prompts[n], text) for n, text in enumerate(TEXTS)]


def test_rows_that_come_later_change_nothing_and_are_not_changed(exact):
    prompts, writer = some_prompts(exact), Writer(exact)
    texts = ["a long film that is good , good and good", TEXTS[0], "bad"]
    lines = [line(exact, most) for most in (9, 5, 7)]
    for number, text in enumerate(texts):
        writer.join(prompts[number % 2][None], batch_of(exact, [text], ["yes"]), [lines[number]])
        writer.step()
        writer.step()
    while writer.lines:
        writer.step()
    wanted = [
        alone(exact, prompts[n % 2], text, most) for n, (text, most) in enumerate(zip(texts, (9, 5, 7), strict=True))
    ]
    assert [each.ids for each in lines] == wanted


def test_who_is_dropped_is_written_no_further_and_the_others_are(exact):
    prompts, writer = some_prompts(exact), Writer(exact)
    lines = [line(exact) for _ in TEXTS]
    writer.join(prompts, batch_of(exact), lines)
    writer.step()
    writer.drop(lines[:1])
    kept = list(lines[0].ids)
    while writer.lines:
        writer.step()
    assert lines[0].ids == kept
    assert lines[1].ids == alone(exact, prompts[1], TEXTS[1])


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_rows_of_unlike_ages_step_in_one_pass(family, monkeypatch):
    backbone = make_backbone(family)
    prompts, writer = some_prompts(backbone), Writer(backbone)
    for text in TEXTS:
        writer.join(prompts[:1], batch_of(backbone, [text], ["yes"]), [Draft(MOST, frozenset())])
    passes, forward = [], backbone.model.forward
    monkeypatch.setattr(backbone.model, "forward", lambda *a, **k: passes.append(1) or forward(*a, **k))
    writer.step()
    assert len(passes) == 1


def test_a_row_ends_at_its_own_length_or_token(backbone):
    prompts = some_prompts(backbone)
    short, stopped = Draft(2, frozenset()), line(backbone)
    writer = Writer(backbone)
    writer.join(prompts, batch_of(backbone), [short, stopped])
    while writer.lines:
        writer.step()
    assert len(short.ids) == 2
    assert not short.ended
    first = alone(backbone, prompts[0], TEXTS[0])[0]
    at_once = Draft(5, frozenset({first}))
    writer.join(prompts[:1], batch_of(backbone, TEXTS[:1], ["yes"]), [at_once])
    assert (at_once.ids, at_once.ended, writer.lines) == ([], True, [])


def test_draws_follow_their_seed_and_keep_to_the_likeliest_of_top_p(backbone):
    prompts = some_prompts(backbone)

    def drawn(seed, **how):
        row = Draft(6, frozenset(), generator=torch.Generator().manual_seed(seed), **how)
        writer = Writer(backbone)
        writer.join(prompts[:1], batch_of(backbone, TEXTS[:1], ["yes"]), [row])
        while writer.lines:
            writer.step()
        return row.ids

    assert drawn(0, temperature=5.0) == drawn(0, temperature=5.0)
    assert len({tuple(drawn(seed, temperature=5.0)) for seed in range(5)}) > 1
    greedy = drawn(0)
    assert all(drawn(seed, temperature=5.0, top_p=1e-6) == greedy for seed in range(5))


def test_a_token_that_a_folder_bans_is_never_written(backbone):
    prompts = some_prompts(backbone)
    first = alone(backbone, prompts[0], TEXTS[0])[0]
    backbone.model.generation_config.bad_words_ids = [[first]]
    try:
        row = Draft(5, frozenset())
        writer = Writer(backbone)
        writer.join(prompts[:1], batch_of(backbone, TEXTS[:1], ["yes"]), [row])
        while writer.lines:
            writer.step()
    finally:
        backbone.model.generation_config.bad_words_ids = None
    assert first not in row.ids


def test_the_log_odds_are_those_of_the_tokens_that_were_written(backbone):
    prompts, row = some_prompts(backbone), Draft(4, frozenset())
    writer = Writer(backbone)
    writer.join(prompts[:1], batch_of(backbone, TEXTS[:1], ["yes"]), [row])
    while writer.lines:
        writer.step()
    batch = batch_of(backbone, TEXTS[:1], ["yes"])
    forced = backbone(prompts[:1], type(batch)(**{**vars(batch), "labels": torch.tensor([row.ids])})).logits
    odds = forced[0].float().log_softmax(-1)
    wanted = [float(odds[place, token]) for place, token in enumerate(row.ids)]
    assert row.log_odds == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_who_comes_and_goes_without_an_end_leaves_nothing_behind(family):
    """Rows overlap, so that the group is never empty; what is remembered grows no wider than its rows need."""
    backbone = make_backbone(family)
    prompts, writer, widths = some_prompts(backbone), Writer(backbone), []
    for number in range(20):
        text = TEXTS[number % 2]
        row = Draft(MOST, frozenset())
        writer.join(prompts[:1], batch_of(backbone, [text], ["yes"]), [row])
        for _ in range(MOST // 2):
            writer.step()
        (group,) = writer._groups
        cache = group.cache.self_attention_cache if group.written is not None else group.cache
        widths.append(cache.layers[0].keys.shape[2])
    assert max(widths) <= min(widths) + MOST + 10
    assert max(widths[10:]) <= max(widths[:10]), "it does not grow"
