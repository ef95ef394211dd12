"""Label words ranked, and text written, by one frozen backbone of every family."""

import math
from dataclasses import replace

import pytest
import torch

from mptune.model import scoring
from mptune.model.backbone import Backbone
from mptune.model.batch import IGNORE
from mptune.model.encoding import distinguishing_depth, encode_targets
from mptune.model.scoring import generate, label_scores, write
from mptune.model.t5 import PackedT5
from support.models import TARGETS, TEXTS, batch_of, choosing, make_backbone, some_prompts


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_mixed_batch_writes_like_its_prompts_one_by_one(exact, num_beams):
    prompts = some_prompts(exact)
    together = generate(exact, prompts, batch_of(exact), 6, num_beams)
    assert together == [
        generate(exact, prompts[row : row + 1], batch_of(exact, [text], ["yes"]), 6, num_beams)[0]
        for row, text in enumerate(TEXTS)
    ]


def generated(backbone, prompts, batch, monkeypatch, tokens=6):
    """The token ids [B, S] and the scores [B, S, V] of what the backbone writes; IGNORE after the end."""
    asked, seen = backbone.model.generate, []

    def listening(**options):
        seen.append(asked(**options, output_scores=True, return_dict_in_generate=True))
        return seen[-1].sequences

    with monkeypatch.context() as patch:
        patch.setattr(backbone.model, "generate", listening)
        generate(backbone, prompts, batch, tokens)
    scores = torch.stack(seen[0].scores, dim=1)
    ids = seen[0].sequences[:, -scores.shape[1] :].clone()
    ended = (ids == backbone.tokenizer.eos_token_id).long().cumsum(1)
    ids[(ended - (ids == backbone.tokenizer.eos_token_id).long()) > 0] = IGNORE
    return ids, scores


def test_generation_and_teacher_forcing_agree_on_every_token(exact, monkeypatch):
    prompts, batch = some_prompts(exact), batch_of(exact)
    ids, scores = generated(exact, prompts, batch, monkeypatch)
    logits = exact(prompts, replace(batch, labels=ids)).logits
    counted = ids != IGNORE
    assert counted.sum() >= 4
    assert torch.equal(logits.argmax(-1)[counted], ids[counted])
    forced, free = logits[counted].float().log_softmax(-1), scores[counted].float().log_softmax(-1)
    torch.testing.assert_close(forced, free, atol=1e-4, rtol=0)


def test_what_a_folder_says_about_generation_does_not_change_what_is_written(any_backbone):
    prompts, batch = some_prompts(any_backbone), batch_of(any_backbone)
    plain = generate(any_backbone, prompts, batch, 6)
    for option, value in {"forced_bos_token_id": 42, "no_repeat_ngram_size": 1, "forced_eos_token_id": 43}.items():
        setattr(any_backbone.model.generation_config, option, value)
    again = Backbone(any_backbone.model, any_backbone.tokenizer, any_backbone.config)
    assert generate(again, prompts, batch, 6) == plain


def test_a_token_that_a_folder_bans_is_never_written(any_backbone, monkeypatch):
    prompts, batch = some_prompts(any_backbone), batch_of(any_backbone)
    first = int(generated(any_backbone, prompts, batch, monkeypatch)[0][0, 0])
    any_backbone.model.generation_config.bad_words_ids = [[first]]
    again = Backbone(any_backbone.model, any_backbone.tokenizer, any_backbone.config)
    assert first not in generated(again, prompts, batch, monkeypatch)[0]


def test_nothing_is_written_beyond_the_asked_number_of_tokens(any_backbone, monkeypatch):
    ids, _ = generated(any_backbone, some_prompts(any_backbone), batch_of(any_backbone), monkeypatch, tokens=2)
    assert ids.shape[1] <= 2


@pytest.mark.parametrize(
    ("words", "depth"),
    [
        pytest.param(["yes", "no", "maybe"], 1, id="differ at the first token"),
        pytest.param(["not very good", "not very bad", "maybe"], 3, id="two share two tokens, one is shorter"),
    ],
)
def test_label_scores_are_the_summed_log_probabilities_of_the_telling_tokens(exact, words, depth):
    label_ids = encode_targets(exact, words, max_tokens=8)
    assert distinguishing_depth(label_ids) == depth
    prompts = some_prompts(exact)
    scores = label_scores(exact, prompts, choosing(batch_of(exact), [label_ids] * 2))
    for row, text in enumerate(TEXTS):
        for column, (word, ids) in enumerate(zip(words, label_ids, strict=True)):
            logits = exact(prompts[row : row + 1], batch_of(exact, [text], [word])).logits[0]
            logps = [float(logits[s].log_softmax(-1)[token]) for s, token in enumerate(ids[:depth])]
            assert float(scores[row, column]) == pytest.approx(sum(logps), abs=1e-5)


def test_rows_may_have_label_words_of_their_own(exact):
    words = [
        encode_targets(exact, w, max_tokens=8) for w in (["yes", "no", "maybe"], ["not very good", "not very bad"])
    ]
    prompts = some_prompts(exact)
    scores = label_scores(exact, prompts, choosing(batch_of(exact), words))
    assert scores[1, 2] == -torch.inf
    for row, own in enumerate(words):
        alone = batch_of(exact, TEXTS[row : row + 1], TARGETS[row : row + 1])
        there = label_scores(exact, prompts[row : row + 1], choosing(alone, [own]))[0]
        torch.testing.assert_close(scores[row, : len(own)], there, atol=1e-5, rtol=0)


def test_label_scores_do_not_depend_on_the_rows_own_labels(exact):
    words = encode_targets(exact, ["not good", "not bad"], max_tokens=8)
    prompts = some_prompts(exact)
    short, long = (
        label_scores(exact, prompts, choosing(batch_of(exact, TEXTS, t), [words] * 2)) for t in (["no", "no"], TARGETS)
    )
    torch.testing.assert_close(short, long, atol=1e-5, rtol=0)


def test_label_scores_follow_the_words_when_these_change_places(exact):
    words = encode_targets(exact, ["not good", "not bad", "yes"], max_tokens=8)
    prompts, batch = some_prompts(exact), batch_of(exact)
    there, back = (
        label_scores(exact, prompts, choosing(batch, [words] * 2)),
        label_scores(exact, prompts, choosing(batch, [words[::-1]] * 2)),
    )
    torch.testing.assert_close(there, back.flip(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("words", [["yes", "no", "maybe"], ["not good", "not bad", "yes"], ["not very good", "no"]])
def test_logits_that_are_known_give_the_same_label_scores_and_gradients(exact, words):
    label_ids = encode_targets(exact, words, max_tokens=8)
    batch = choosing(batch_of(exact, TEXTS, [words[0], words[1]]), [label_ids] * 2)
    scores, gradients = [], []
    for known in (False, True):
        prompts = some_prompts(exact).requires_grad_()
        scores.append(label_scores(exact, prompts, batch, exact(prompts, batch).logits if known else None))
        gradients += torch.autograd.grad(scores[-1].log_softmax(-1)[:, 0].sum(), prompts)
    torch.testing.assert_close(scores[1], scores[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-4)
    assert gradients[0].abs().max() > 1e-4


def test_known_logits_are_read_at_the_rows_that_have_label_words(exact):
    label_ids = encode_targets(exact, ["yes", "no", "maybe"], max_tokens=8)
    batch, prompts = choosing(batch_of(exact, TEXTS, ["no", "maybe"]), [[], label_ids]), some_prompts(exact)
    scores = label_scores(exact, prompts, batch, exact(prompts, batch).logits)
    torch.testing.assert_close(scores[1], label_scores(exact, prompts, batch)[1], atol=1e-5, rtol=0)
    assert scores[0].tolist() == [-torch.inf] * 3


@pytest.mark.parametrize(("words", "passes"), [(["yes", "no", "maybe"], 0), (["not good", "not bad", "yes"], 1)])
def test_words_that_differ_at_once_are_scored_from_the_logits_of_the_labels(exact, monkeypatch, words, passes):
    batch = choosing(batch_of(exact, TEXTS, [words[0]] * 2), [encode_targets(exact, words, max_tokens=8)] * 2)
    prompts, asked, forward = some_prompts(exact), [], Backbone.__call__
    logits = exact(prompts, batch).logits
    monkeypatch.setattr(Backbone, "__call__", lambda *given: asked.append(0) or forward(*given))
    label_scores(exact, prompts, batch, logits)
    assert len(asked) == passes


@pytest.mark.parametrize("known", [False, True], ids=["asked", "from the logits of the labels"])
def test_label_words_are_ranked_in_float32_where_the_weights_are_bfloat16(any_backbone, known):
    any_backbone.model.bfloat16()
    words = encode_targets(any_backbone, ["yes", "no", "maybe", "true", "false", "one", "two"], max_tokens=8)
    assert distinguishing_depth(words) == 1
    prompts = some_prompts(any_backbone, 1)
    batch = choosing(batch_of(any_backbone, TEXTS, ["yes", "no"], [0, 0]), [words] * 2)
    batch = replace(batch, labels=batch.labels[:, :1])  # as they are asked: of other widths, states round otherwise
    out = any_backbone(prompts, batch, hidden_layers=(-1,))
    assert out.logits.dtype == torch.float32
    scores = label_scores(any_backbone, prompts, batch, out.logits if known else None)
    last, head = out.hidden[1][:, 0].float(), any_backbone.model.get_output_embeddings().weight.float()
    if any_backbone.model.config.model_type == "t5":  # a tied output layer divides first
        last = (out.hidden[1][:, 0] * last.shape[1] ** -0.5).float()
    logits = last @ head[[ids[0] for ids in words]].T
    torch.testing.assert_close(scores.diff(dim=1), logits.diff(dim=1), atol=1e-4, rtol=0)


def word_by_word(backbone, prompts, batch):
    """What `label_scores` returns, each word of each row read alone."""
    scores = torch.full((len(batch.choices), max(map(len, batch.choices))), -torch.inf)
    for row, words in enumerate(batch.choices):
        for column, ids in enumerate(words):
            told = ids[: distinguishing_depth(words)]
            read = batch.behind([row], torch.tensor([[*told]], device=backbone.device)).spread()
            log_odds = backbone(prompts, read).logits[0].float().log_softmax(-1)
            scores[row, column] = sum(log_odds[spot, token] for spot, token in enumerate(told))
    return scores


@pytest.mark.parametrize("known", [True, False])
def test_many_words_of_several_tasks_are_scored_as_one_by_one(exact, known, monkeypatch):
    batch, prompts = batch_of(exact), some_prompts(exact)
    many = encode_targets(exact, [f"{a} {b} {c}" for a in ("yes", "no") for b in ("good", "bad") for c in "xyz"], 64)
    few = encode_targets(exact, ["yes", "no"], 64)
    batch = replace(batch, choices=[many if row % 2 else few for row in range(len(batch.labels))])
    sorted_words, of = [], scoring.LabelWords.of
    monkeypatch.setattr(scoring.LabelWords, "of", lambda words: sorted_words.append(words) or of(words))
    logits = exact(prompts, batch).logits if known else None
    found = label_scores(exact, prompts, batch, logits)
    assert len(sorted_words) == 2  # once for each task
    torch.testing.assert_close(found.cpu(), word_by_word(exact, prompts, batch), atol=1e-4, rtol=0)


@pytest.mark.parametrize("at_once", [1, 3, 256])
def test_a_text_is_read_once_however_many_words_stand_behind_it(monkeypatch, at_once):
    backbone = make_backbone("t5")
    monkeypatch.setattr(scoring, "READ_AT_ONCE", at_once)
    words = encode_targets(
        backbone, [f"{a} {b} {c}" for a in ("yes", "no") for b in ("good", "bad") for c in "xyz"], 64
    )
    beginnings = len({tuple(ids[: distinguishing_depth(words) - 1]) for ids in words})
    batch, prompts = choosing(batch_of(backbone), [words] * 2), some_prompts(backbone)
    encoded, encode = [], PackedT5.encode
    monkeypatch.setattr(PackedT5, "encode", lambda self, *given: encoded.append(len(given[0])) or encode(self, *given))
    found = label_scores(backbone, prompts, batch)
    assert encoded == [2] * math.ceil(2 * beginnings / at_once)  # both texts, once a pass
    torch.testing.assert_close(found, word_by_word(backbone, prompts, batch), atol=1e-4, rtol=0)


def test_a_text_ends_before_the_characters_that_stop_it_and_is_written_no_further(any_backbone):
    prompts, batch = some_prompts(any_backbone), batch_of(any_backbone)
    whole = generate(any_backbone, prompts, batch, 8)
    longest = max(whole, key=len)
    stop = next(letter for letter in longest[len(longest) // 2 :] if letter.strip())
    assert generate(any_backbone, prompts, batch, 8, stop=stop) == [text.partition(stop)[0].strip() for text in whole]
    assert generate(any_backbone, prompts, batch, 8, stop="§§") == whole, "what is never written stops nothing"
    alone = batch_of(any_backbone, TEXTS[:1], ["yes"])
    (ids,) = write(any_backbone, prompts[:1], alone, 8)
    read = [any_backbone.tokenizer.decode(ids[: n + 1], skip_special_tokens=True).strip() for n in range(len(ids))]
    there = next(n for n, text in enumerate(read) if text)
    assert write(any_backbone, prompts[:1], alone, 8, stop=read[there][0]).shape[1] == there + 1
