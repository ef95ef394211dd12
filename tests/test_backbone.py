"""One frozen backbone of every family, against the same model asked in transformers' own way."""

import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    Lfm2Config,
    Lfm2ForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    RwkvConfig,
    RwkvForCausalLM,
)

from conftest import FAMILIES, TARGETS, TEXTS, batch_of, exact_norms, make_backbone, make_tokenizer, some_prompts
from mptune import backbone as module
from mptune.backbone import FrozenBackbone, _device, distinguishing_depth, load_backbone, multiplies_bfloat16
from mptune.config import BackboneConfig
from mptune.errors import BackboneError
from mptune.losses import IGNORE, task_loss

NEAR = 1e-6
LIMITED = ("bart", "marian", "gpt2", "llama")  # families with a table or a range of positions


@pytest.fixture
def exact(any_backbone, monkeypatch) -> FrozenBackbone:
    """One backbone of every family in float64, where a difference is a defect and not rounding."""
    exact_norms(monkeypatch)
    any_backbone.model.double()
    return any_backbone


def token_ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@torch.no_grad()
def own_output(backbone, text_ids, label_ids):
    """What the model answers to one unpadded row of plain token ids."""
    text, labels = torch.tensor([text_ids]), torch.tensor([label_ids])
    if not backbone.is_encoder_decoder:
        return backbone.model(input_ids=torch.cat([text, labels], dim=1), output_hidden_states=True)
    start = torch.tensor([[backbone.model.config.decoder_start_token_id]])
    return backbone.model(
        input_ids=text,
        attention_mask=torch.ones_like(text),
        decoder_input_ids=torch.cat([start, labels[:, :-1]], dim=1),
        output_hidden_states=True,
    )


def own_logits(backbone, text_ids, label_ids):
    """The model's own logits at the positions that predict the labels. [S, V]"""
    logits = own_output(backbone, text_ids, label_ids).logits[0]
    return logits if backbone.is_encoder_decoder else logits[len(text_ids) - 1 : -1]


# -- where the prompt stands ------------------------------------------------------------------------------------------


def test_an_empty_prompt_gives_the_models_own_logits(exact):
    inputs = exact.encode_inputs(TEXTS, max_tokens=40, prompt_length=0, room=8)
    targets = exact.encode_targets(TARGETS, max_tokens=8)
    got = exact(some_prompts(exact, length=0), exact.collate([0, 0], inputs, targets)).logits
    for row, (text_ids, label_ids) in enumerate(zip(inputs, targets, strict=True)):
        own = own_logits(exact, text_ids, label_ids)
        torch.testing.assert_close(got[row, : len(label_ids)], own, atol=NEAR, rtol=0)


def test_a_prompt_made_of_a_texts_first_embeddings_reads_as_that_text(exact):
    whole = exact.encode_inputs(TEXTS, max_tokens=40, prompt_length=0, room=8)
    targets = exact.encode_targets(TARGETS, max_tokens=8)
    prompts = torch.stack([exact.embeddings[ids[:3]] for ids in whole])
    got = exact(prompts, exact.collate([0, 0], [ids[3:] for ids in whole], targets)).logits
    for row, (text_ids, label_ids) in enumerate(zip(whole, targets, strict=True)):
        own = own_logits(exact, text_ids, label_ids)
        torch.testing.assert_close(got[row, : len(label_ids)], own, atol=NEAR, rtol=0)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_decoder_only_models_compute_logits_where_labels_are_predicted_alone(family, monkeypatch):
    backbone, widths = make_backbone(family), []
    head = backbone.model.get_output_embeddings()
    monkeypatch.setattr(type(head), "forward", recorded(type(head).forward, head, widths))
    batch = batch_of(backbone)
    kept = backbone(some_prompts(backbone), batch).logits
    backbone._keeps_logits = False  # as of a model that knows no such thing
    assert torch.allclose(kept, backbone(some_prompts(backbone), batch).logits, atol=1e-5)
    short, whole = widths
    assert short == batch.labels.shape[1] + 1
    assert whole == 3 + batch.input_ids.shape[1] + batch.labels.shape[1]


def recorded(forward, module, widths):
    def noted(self, x):
        if self is module:
            widths.append(x.shape[1])
        return forward(self, x)

    return noted


def test_a_prompt_changes_the_logits(exact):
    batch = batch_of(exact)
    bare, prompted = (exact(some_prompts(exact, length=length), batch).logits for length in (0, 3))
    assert (bare - prompted).abs().max() > 0.01


def test_hidden_states_are_the_models_own_on_text_and_labels(exact):
    inputs = exact.encode_inputs(TEXTS[:1], max_tokens=40, prompt_length=0, room=8)
    targets = exact.encode_targets(TARGETS[1:], max_tokens=8)
    text, label = exact(some_prompts(exact, 1, 0), exact.collate([0], inputs, targets), hidden_layers=(-1,)).hidden
    own = own_output(exact, inputs[0], targets[0])
    if exact.is_encoder_decoder:
        own_text, own_label = own.encoder_hidden_states[-1], own.decoder_hidden_states[-1]
    else:
        width = len(inputs[0])
        own_text, own_label = own.hidden_states[-1][:, :width], own.hidden_states[-1][:, width - 1 : -1]
    torch.testing.assert_close(text, own_text, atol=NEAR, rtol=0)
    torch.testing.assert_close(label, own_label, atol=NEAR, rtol=0)


def test_hidden_states_do_not_include_the_prompt(exact):
    inputs = exact.encode_inputs(TEXTS, max_tokens=40, prompt_length=0, room=8)
    targets = exact.encode_targets(TARGETS, max_tokens=8)
    batch = exact.collate([0, 0], inputs, targets)
    hidden = exact(some_prompts(exact), batch, hidden_layers=(0, -1)).hidden
    text_shape, label_shape = (*batch.input_ids.shape, exact.width), (*batch.labels.shape, exact.width)
    assert [tuple(h.shape) for h in hidden] == [text_shape, text_shape, label_shape, label_shape]
    # Behind a prompt of the text's own first embeddings stand the states of the rest of that text.
    prompt = exact.embeddings[inputs[1][:3]][None]
    cut, _ = exact(prompt, exact.collate([0], [inputs[1][3:]], targets[1:]), hidden_layers=(-1,)).hidden
    whole, _ = exact(some_prompts(exact, 1, 0), exact.collate([0], inputs[1:], targets[1:]), hidden_layers=(-1,)).hidden
    torch.testing.assert_close(cut, whole[:, 3:], atol=NEAR, rtol=0)


def test_no_layer_asked_for_means_no_hidden_states(backbone):
    assert backbone(some_prompts(backbone), batch_of(backbone)).hidden == ()


# -- batches ----------------------------------------------------------------------------------------------------------


def test_padding_never_changes_logits_or_label_scores(exact):
    words = exact.encode_targets(["not good", "not bad", "maybe"], max_tokens=8)
    prompts = some_prompts(exact)
    both = exact(prompts, batch_of(exact)).logits
    scores = exact.label_scores(prompts, batch_of(exact), [words] * 2)
    for row in (0, 1):
        alone = batch_of(exact, TEXTS[row : row + 1], TARGETS[row : row + 1])
        counted = alone.labels.shape[1]
        logits = exact(prompts[row : row + 1], alone).logits
        torch.testing.assert_close(both[row : row + 1, :counted], logits, atol=NEAR, rtol=0)
        own = exact.label_scores(prompts[row : row + 1], alone, [words])
        torch.testing.assert_close(scores[row : row + 1], own, atol=1e-5, rtol=0)


def test_the_tokens_under_the_padding_are_never_read(exact):
    batch = batch_of(exact)
    prompts = some_prompts(exact)
    before = exact(prompts, batch).logits[0, :2]
    assert (batch.mask[0] == 0).any()
    batch.input_ids[batch.mask == 0] = 42
    torch.testing.assert_close(exact(prompts, batch).logits[0, :2], before, atol=NEAR, rtol=0)


def test_a_mixed_batch_answers_like_its_prompts_one_by_one(exact):
    texts, targets = [TEXTS[0], TEXTS[0]], [TARGETS[1], TARGETS[1]]
    words = exact.encode_targets(["yes", "no"], max_tokens=8)
    prompts = some_prompts(exact)
    mixed = batch_of(exact, texts, targets)
    logits, scores = exact(prompts, mixed).logits, exact.label_scores(prompts, mixed, [words] * 2)
    assert (logits[0] - logits[1]).abs().max() > 0.01
    for row in (0, 1):
        alone = batch_of(exact, texts[:1], targets[:1])
        own = prompts[row : row + 1]
        torch.testing.assert_close(logits[row : row + 1], exact(own, alone).logits, atol=NEAR, rtol=0)
        torch.testing.assert_close(scores[row : row + 1], exact.label_scores(own, alone, [words]), atol=1e-5, rtol=0)


UNLIKE = ["a cat sat on mat and the dog ran fast", "no", "the sky is blue", "dog", "the dog ran fast and slow and fast"]
UNLIKE_TARGETS = ["yes", "not very good", "no", "maybe", "not good"]


def assert_same(one, other, batch):
    """Two outputs have the same numbers wherever no padding stands."""
    counted = batch.labels != IGNORE
    torch.testing.assert_close(one.logits[counted], other.logits[counted], atol=NEAR, rtol=0)
    layers = len(one.hidden) // 2
    masks = [batch.mask.bool()] * layers + [counted] * layers
    for mine, theirs, mask in zip(one.hidden, other.hidden, masks, strict=True):
        assert mine.shape == theirs.shape
        torch.testing.assert_close(mine[mask], theirs[mask], atol=NEAR, rtol=0)


def passes(backbone, monkeypatch, pass_cost):
    """Logits, hidden states and the prompts' gradients of a batch, and how many rows each forward pass read."""
    monkeypatch.setattr(module, "PASS_COST", pass_cost)
    sizes = []
    forward = type(backbone)._forward
    monkeypatch.setattr(
        type(backbone), "_forward", lambda self, p, *rest: sizes.append(len(p)) or forward(self, p, *rest)
    )
    batch = batch_of(backbone, UNLIKE, UNLIKE_TARGETS)
    prompts = some_prompts(backbone, len(UNLIKE)).double().requires_grad_()
    out = backbone(prompts, batch, hidden_layers=(-1, 1))
    task_loss(out.logits.double(), batch.labels).backward()
    monkeypatch.setattr(type(backbone), "_forward", forward)
    return out, prompts.grad, batch, sizes


def test_t5_reads_rows_of_unlike_lengths_in_one_pass(monkeypatch):
    *_, sizes = passes(make_backbone("t5"), monkeypatch, pass_cost=0)
    assert sizes == [5]


@pytest.mark.parametrize("any_backbone", ["bart", "marian", "gpt2", "llama"], indirect=True)  # T5 is not padded at all
def test_a_batch_read_in_groups_of_like_lengths_gives_the_outputs_and_gradients_of_one_pass(exact, monkeypatch):
    whole, gradient, batch, one = passes(exact, monkeypatch, pass_cost=10**6)
    parts, summed, _, several = passes(exact, monkeypatch, pass_cost=0)
    assert one == [5]
    assert len(several) > 2
    assert sum(several) == 5
    assert_same(parts, whole, batch)
    torch.testing.assert_close(summed, gradient, atol=NEAR, rtol=0)
    assert gradient.abs().min() > 0


def read_by_tasks(backbone, monkeypatch, *, shared, tasks=(7, 7, 4, 4, 7), length=3):
    """Outputs and the prompts' gradients of five rows of two tasks, and how many rows each call of the model had."""
    monkeypatch.setattr(module, "PASS_COST", 0 if shared else 10**6)
    monkeypatch.setattr(module, "like_lengths", lambda costs, cost: [list(range(len(costs)))])
    own = some_prompts(backbone, len(set(tasks)), length).double().requires_grad_()
    batch = batch_of(backbone, UNLIKE, UNLIKE_TARGETS)
    batch = type(batch)(torch.tensor(tasks), batch.input_ids, batch.mask, batch.labels)
    rows, forward = [], backbone.model.forward
    backbone.model.forward = lambda *a, **k: rows.append(tuple(k["inputs_embeds"].shape[:2])) or forward(*a, **k)
    out = backbone(own[torch.tensor(tasks).unique(return_inverse=True)[1]], batch, hidden_layers=(-1, 1, 0))
    backbone.model.forward = forward
    (out.logits.logsumexp(-1).sum() + sum(h.pow(2).sum() for h in out.hidden)).backward()
    return out, own.grad, rows, batch


@pytest.mark.parametrize("any_backbone", ["gpt2", "llama"], indirect=True)
def test_a_decoder_only_model_reads_the_prompt_of_a_task_once(exact, monkeypatch):
    alone, gradient, once, batch = read_by_tasks(exact, monkeypatch, shared=False)
    shared, summed, twice, _ = read_by_tasks(exact, monkeypatch, shared=True)
    width = batch.input_ids.shape[1] + batch.labels.shape[1]
    assert (once, twice) == ([(5, 3 + width)], [(2, 3), (5, width)])
    assert_same(shared, alone, batch)
    torch.testing.assert_close(summed, gradient, atol=1e-5, rtol=1e-4)  # llama's norms are float32
    assert gradient.abs().min() > 0


def test_where_every_row_is_of_another_task_nothing_is_read_apart(monkeypatch):
    backbone = doubled(make_backbone("llama"))
    _, _, rows, _ = read_by_tasks(backbone, monkeypatch, shared=True, tasks=(0, 1, 2, 3, 4))
    assert len(rows) == 1


def test_rows_of_one_task_with_prompts_of_their_own_share_nothing(monkeypatch):
    backbone = make_backbone("llama")
    monkeypatch.setattr(module, "PASS_COST", 0)
    monkeypatch.setattr(module, "like_lengths", lambda costs, cost: [list(range(len(costs)))])
    prompts, batch = some_prompts(backbone), batch_of(backbone)
    batch = type(batch)(torch.tensor([1, 1]), batch.input_ids, batch.mask, batch.labels)
    both = backbone(prompts, batch).logits
    for row in (0, 1):
        alone = batch_of(backbone, TEXTS[row : row + 1], TARGETS[row : row + 1])
        counted = alone.labels.shape[1]
        own = backbone(prompts[row : row + 1], alone).logits[0]
        torch.testing.assert_close(both[row, :counted], own, atol=1e-5, rtol=0)


def test_with_dropout_rows_share_no_prompt(monkeypatch):
    backbone = make_backbone("gpt2")
    backbone.set_dropout(True)
    _, _, rows, _ = read_by_tasks(doubled(backbone), monkeypatch, shared=True)
    assert len(rows) == 1


OTHER = dict(
    vocab_size=400, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3, bos_token_id=3, eos_token_id=1,
    pad_token_id=0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("make", "reads_once"),
    [
        pytest.param(lambda: MistralForCausalLM(MistralConfig(**OTHER, sliding_window=4)), True, id="sliding window"),
        pytest.param(
            lambda: Lfm2ForCausalLM(Lfm2Config(**OTHER, layer_types=["conv", "full_attention"])),
            False,
            id="convolution",
        ),
        pytest.param(
            lambda: RwkvForCausalLM(
                RwkvConfig(vocab_size=400, hidden_size=16, attention_hidden_size=16, num_hidden_layers=2)
            ),
            False,
            id="a state and no cache",
        ),
    ],
)
def test_other_memories_than_keys_and_values_are_left_alone(make, reads_once, monkeypatch):
    torch.manual_seed(0)
    tokenizer = make_tokenizer(adds_eos=False, adds_bos=True)
    backbone = doubled(FrozenBackbone(make(), tokenizer, BackboneConfig(name="other", device="cpu")))
    alone, _, _, batch = read_by_tasks(backbone, monkeypatch, shared=False, length=8)
    shared, _, rows, _ = read_by_tasks(backbone, monkeypatch, shared=True, length=8)
    width = batch.input_ids.shape[1] + batch.labels.shape[1]
    assert rows == [(2, 8), (5, width if reads_once else 8 + width)]
    again = read_by_tasks(backbone, monkeypatch, shared=True, length=8)[2]
    assert again == (rows if reads_once else rows[1:])  # what cannot be shared is not tried twice
    counted = batch.labels != IGNORE
    torch.testing.assert_close(shared.logits[counted], alone.logits[counted], atol=1e-5, rtol=0)


def doubled(backbone):
    backbone.model.double()
    return backbone


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_mixed_batch_writes_like_its_prompts_one_by_one(exact, num_beams):
    prompts = some_prompts(exact)
    together = exact.generate(prompts, batch_of(exact), 6, num_beams)
    assert together == [
        exact.generate(prompts[row : row + 1], batch_of(exact, [text], ["yes"]), 6, num_beams)[0]
        for row, text in enumerate(TEXTS)
    ]


# -- generation -------------------------------------------------------------------------------------------------------


def generated(backbone, prompts, batch, monkeypatch, tokens=6):
    """The token ids [B, S] and the scores [B, S, V] of what the backbone writes; IGNORE after the end."""
    generate, seen = backbone.model.generate, []

    def listening(**options):
        seen.append(generate(**options, output_scores=True, return_dict_in_generate=True))
        return seen[-1].sequences

    with monkeypatch.context() as patch:
        patch.setattr(backbone.model, "generate", listening)
        backbone.generate(prompts, batch, tokens)
    scores = torch.stack(seen[0].scores, dim=1)
    ids = seen[0].sequences[:, -scores.shape[1] :].clone()
    ended = (ids == backbone.tokenizer.eos_token_id).long().cumsum(1)
    ids[(ended - (ids == backbone.tokenizer.eos_token_id).long()) > 0] = IGNORE
    return ids, scores


def test_generation_and_teacher_forcing_agree_on_every_token(exact, monkeypatch):
    prompts, batch = some_prompts(exact), batch_of(exact)
    ids, scores = generated(exact, prompts, batch, monkeypatch)
    logits = exact(prompts, type(batch)(batch.task_ids, batch.input_ids, batch.mask, ids)).logits
    counted = ids != IGNORE
    assert counted.sum() >= 4
    assert torch.equal(logits.argmax(-1)[counted], ids[counted])
    forced, free = logits[counted].float().log_softmax(-1), scores[counted].float().log_softmax(-1)
    torch.testing.assert_close(forced, free, atol=1e-4, rtol=0)


def test_what_a_folder_says_about_generation_does_not_change_what_is_written(any_backbone):
    prompts, batch = some_prompts(any_backbone), batch_of(any_backbone)
    plain = any_backbone.generate(prompts, batch, 6)
    for option, value in {"forced_bos_token_id": 42, "no_repeat_ngram_size": 1, "forced_eos_token_id": 43}.items():
        setattr(any_backbone.model.generation_config, option, value)
    again = FrozenBackbone(any_backbone.model, any_backbone.tokenizer, any_backbone.config)
    assert again.generate(prompts, batch, 6) == plain


def test_a_token_that_a_folder_bans_is_never_written(any_backbone, monkeypatch):
    prompts, batch = some_prompts(any_backbone), batch_of(any_backbone)
    first = int(generated(any_backbone, prompts, batch, monkeypatch)[0][0, 0])
    any_backbone.model.generation_config.bad_words_ids = [[first]]
    again = FrozenBackbone(any_backbone.model, any_backbone.tokenizer, any_backbone.config)
    assert first not in generated(again, prompts, batch, monkeypatch)[0]


def test_nothing_is_written_beyond_the_asked_number_of_tokens(any_backbone, monkeypatch):
    ids, _ = generated(any_backbone, some_prompts(any_backbone), batch_of(any_backbone), monkeypatch, tokens=2)
    assert ids.shape[1] <= 2


# -- frozen -----------------------------------------------------------------------------------------------------------


def test_only_the_prompt_receives_gradients(any_backbone):
    prompts = some_prompts(any_backbone).requires_grad_()
    batch = batch_of(any_backbone)
    task_loss(any_backbone(prompts, batch).logits, batch.labels).backward()
    assert (prompts.grad.abs().amax(dim=-1) > 0).all()
    for name, p in any_backbone.model.named_parameters():
        assert not p.requires_grad, name
        assert p.grad is None, name


def test_scoring_and_writing_keep_no_graph(backbone):
    prompts = some_prompts(backbone).requires_grad_()
    assert not backbone.label_scores(prompts, batch_of(backbone), [[[5, 1], [6, 1]]] * 2).requires_grad


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "llama"])  # Llama has no dropout
def test_dropout_is_off_until_it_is_switched_on(family):
    backbone = make_backbone(family)
    backbone = FrozenBackbone(backbone.model.train(), backbone.tokenizer, backbone.config)
    prompts, batch = some_prompts(backbone), batch_of(backbone)
    first = backbone(prompts, batch).logits
    assert torch.equal(backbone(prompts, batch).logits, first)
    backbone.set_dropout(True)
    assert not torch.allclose(backbone(prompts, batch).logits, first, atol=1e-3)
    backbone.set_dropout(False)
    assert torch.equal(backbone(prompts, batch).logits, first)


# -- label words ------------------------------------------------------------------------------------------------------

DEPTHS = [
    pytest.param([[5, 1], [6, 1]], 1, id="differ at the first token"),
    pytest.param([[5, 6, 1], [5, 7, 1], [8, 1]], 2, id="two share the first token"),
    pytest.param([[5, 1], [5, 6, 1]], 2, id="one begins the other"),
    pytest.param([[5], [5, 1]], 2, id="one begins the other and has no end"),
    pytest.param([[5, 6, 7, 1], [5, 6, 8, 1], [9, 1]], 3, id="one is shorter than the depth"),
    pytest.param([[5, 1]], 1, id="one word alone"),
    pytest.param([[5, 1], [6, 1], [5, 1]], 0, id="two are the same throughout"),
]


@pytest.mark.parametrize(("label_ids", "depth"), DEPTHS)
def test_label_words_are_told_apart_by_as_few_tokens_as_possible(label_ids, depth):
    assert distinguishing_depth(label_ids) == depth


@pytest.mark.parametrize(
    ("words", "depth"),
    [
        pytest.param(["yes", "no", "maybe"], 1, id="differ at the first token"),
        pytest.param(["not very good", "not very bad", "maybe"], 3, id="two share two tokens, one is shorter"),
    ],
)
def test_label_scores_are_the_summed_log_probabilities_of_the_telling_tokens(exact, words, depth):
    label_ids = exact.encode_targets(words, max_tokens=8)
    assert distinguishing_depth(label_ids) == depth
    prompts = some_prompts(exact)
    scores = exact.label_scores(prompts, batch_of(exact), [label_ids] * 2)
    for row, text in enumerate(TEXTS):
        for column, (word, ids) in enumerate(zip(words, label_ids, strict=True)):
            logits = exact(prompts[row : row + 1], batch_of(exact, [text], [word])).logits[0]
            logps = [float(logits[s].log_softmax(-1)[token]) for s, token in enumerate(ids[:depth])]
            assert float(scores[row, column]) == pytest.approx(sum(logps), abs=1e-5)


def test_rows_may_have_label_words_of_their_own(exact):
    words = [exact.encode_targets(w, max_tokens=8) for w in (["yes", "no", "maybe"], ["not very good", "not very bad"])]
    prompts = some_prompts(exact)
    scores = exact.label_scores(prompts, batch_of(exact), words)
    assert scores[1, 2] == -torch.inf
    for row, own in enumerate(words):
        alone = batch_of(exact, TEXTS[row : row + 1], TARGETS[row : row + 1])
        there = exact.label_scores(prompts[row : row + 1], alone, [own])[0]
        torch.testing.assert_close(scores[row, : len(own)], there, atol=1e-5, rtol=0)


def test_label_scores_do_not_depend_on_the_rows_own_labels(exact):
    words = exact.encode_targets(["not good", "not bad"], max_tokens=8)
    prompts = some_prompts(exact)
    short, long = (exact.label_scores(prompts, batch_of(exact, TEXTS, t), [words] * 2) for t in (["no", "no"], TARGETS))
    torch.testing.assert_close(short, long, atol=1e-5, rtol=0)


def test_label_scores_follow_the_words_when_these_change_places(exact):
    words = exact.encode_targets(["not good", "not bad", "yes"], max_tokens=8)
    prompts, batch = some_prompts(exact), batch_of(exact)
    there, back = exact.label_scores(prompts, batch, [words] * 2), exact.label_scores(prompts, batch, [words[::-1]] * 2)
    torch.testing.assert_close(there, back.flip(1), atol=1e-5, rtol=0)


# -- text to tokens ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", LIMITED)
def test_a_long_text_is_cut_to_what_the_prompt_and_the_target_leave(family):
    backbone = make_backbone(family)
    text = "the sky is blue " * 50
    (whole,) = backbone.tokenizer([text])["input_ids"]
    (ids,) = backbone.encode_inputs([text], max_tokens=1000, prompt_length=10, room=8)
    assert len(ids) == (54 if backbone.is_encoder_decoder else 46)
    assert list(ids[:45]) == whole[:45]
    batch = backbone.collate([0], [ids], [[5] * 8])
    assert backbone(some_prompts(backbone, 1, 10), batch).logits.shape == (1, 8, 400)
    assert len(backbone.generate(some_prompts(backbone, 1, 10), batch, 8)) == 1


def test_many_texts_are_read_in_portions_and_kept_small(monkeypatch, caplog):
    backbone, texts = make_backbone("t5"), [*TEXTS * 2, "the sky is blue " * 20]
    monkeypatch.setattr(module, "TEXTS_AT_ONCE", 2)
    asked, tokenizer = [], backbone.tokenizer
    backbone.tokenizer = lambda some, **how: asked.append(len(some)) or tokenizer(some, **how)
    backbone.tokenizer.eos_token_id = tokenizer.eos_token_id
    ids = backbone.encode_inputs(texts, max_tokens=30, prompt_length=0, room=8)
    assert asked == [2, 2, 1]
    assert [list(row) for row in ids[:4]] == tokenizer(TEXTS * 2)["input_ids"]
    assert "1 of 5 texts are longer than 30 tokens" in caplog.text  # counted over all portions
    assert all(len(memoryview(row).tobytes()) == 4 * len(row) for row in ids)


def test_relative_positions_set_no_limit_but_max_tokens():
    backbone = make_backbone("t5")
    (ids,) = backbone.encode_inputs(["the sky is blue " * 50], max_tokens=150, prompt_length=1000, room=8)
    assert backbone.positions is None
    assert len(ids) == 150


@pytest.mark.parametrize("family", ["t5", "mt5", "bart", "marian"])
def test_a_cut_text_keeps_its_closing_eos(family):
    backbone = make_backbone(family)
    ids = backbone.encode_inputs(TEXTS, max_tokens=6, prompt_length=0, room=8)
    assert [len(i) for i in ids] == [5, 6]
    assert [i[-1] for i in ids] == [1, 1]


def test_a_cut_text_keeps_an_eos_whose_number_is_zero():
    tokenizer = make_tokenizer(adds_eos=True)
    tokenizer.eos_token, tokenizer.pad_token = "<pad>", "</s>"  # Marian's vocabularies begin with the end
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <pad>", special_tokens=[("<pad>", 0)]
    )
    backbone = FrozenBackbone(make_backbone("marian").model, tokenizer, BackboneConfig(name="zero"))
    ids = backbone.encode_inputs(TEXTS, max_tokens=6, prompt_length=0, room=8)
    assert [i[-1] for i in ids] == [0, 0]


def test_a_cut_is_said_once(backbone, caplog):
    with caplog.at_level(logging.WARNING, logger="mptune.backbone"):
        backbone.encode_inputs(TEXTS, max_tokens=20, prompt_length=0, room=8)
        assert not caplog.records
        backbone.encode_inputs(TEXTS, max_tokens=6, prompt_length=0, room=8)
        backbone.encode_inputs(TEXTS, max_tokens=4, prompt_length=0, room=8)
    assert [r.message for r in caplog.records] == [
        "1 of 2 texts are longer than 6 tokens and are cut; the prompt is kept whole. (Said once.)"
    ]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_prompt_that_leaves_no_place_for_the_text_is_refused_with_the_target(family):
    backbone = make_backbone(family)
    assert backbone.encode_inputs(TEXTS, 40, prompt_length=55, room=8)
    with pytest.raises(BackboneError) as error:
        backbone.encode_inputs(TEXTS, 40, prompt_length=56, room=8)
    assert str(error.value) == (
        f"tiny-{family} reads 64 positions, and a prompt of 56 soft tokens and 8 target tokens would leave none for "
        "the text. Take a shorter prompt or a smaller max_target_tokens."
    )


@pytest.mark.parametrize("family", ["bart", "marian"])
def test_a_prompt_that_leaves_no_place_for_the_text_is_refused(family):
    backbone = make_backbone(family)
    assert backbone.encode_inputs(TEXTS, 40, prompt_length=63, room=8)
    with pytest.raises(BackboneError) as error:
        backbone.encode_inputs(TEXTS, 40, prompt_length=64, room=8)
    assert str(error.value) == (
        f"tiny-{family} reads 64 positions, and a prompt of 64 soft tokens would leave none for the text. "
        "Take a shorter prompt."
    )


def trained(pre_tokenizer, normalizer=None):
    """A tokenizer that treats the space between words in a way of its own."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=100, special_tokens=["<pad>", "</s>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator(["the", "sky", "yes", "no", " the", " sky", " yes", " no"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


SPACES = [
    pytest.param(lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=False)), id="as GPT-2, no space of its own"),
    pytest.param(lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=True)), id="a space where none is"),
    pytest.param(lambda: trained(pre_tokenizers.Metaspace(prepend_scheme="always")), id="as SentencePiece"),
    pytest.param(
        lambda: trained(None, normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])),
        id="as Llama 2, a space before every text",
    ),
]


@pytest.mark.parametrize("make", SPACES)
def test_a_decoder_only_target_goes_on_with_the_text_after_one_space(make):
    tokenizer = make()
    backbone = FrozenBackbone(make_backbone("gpt2").model, tokenizer, BackboneConfig(name="spaces"))
    targets = backbone.encode_targets(["yes", "no"], max_tokens=8)
    for word, ids in zip(["yes", "no"], targets, strict=True):
        assert token_ids(tokenizer, "the sky") + ids == [*token_ids(tokenizer, f"the sky {word}"), 1]


def test_an_encoder_decoders_target_begins_without_a_space():
    tokenizer = trained(pre_tokenizers.ByteLevel(add_prefix_space=False))
    backbone = FrozenBackbone(make_backbone("t5").model, tokenizer, BackboneConfig(name="spaces"))
    assert token_ids(tokenizer, "yes") != token_ids(tokenizer, " yes")
    assert backbone.encode_targets(["yes"], max_tokens=8) == [[*token_ids(tokenizer, "yes"), 1]]


def test_a_cut_target_keeps_its_end(any_backbone):
    (whole,) = any_backbone.encode_targets(["not very good"], max_tokens=8)
    assert any_backbone.encode_targets(["not very good"], max_tokens=3) == [[*whole[:2], 1]]


def test_a_tokenizer_without_padding_pads_with_its_end():
    backbone = make_backbone("gpt2")
    with_padding = backbone(some_prompts(backbone), batch_of(backbone)).logits[0, :2]
    backbone.tokenizer.pad_token = None
    again = FrozenBackbone(backbone.model, backbone.tokenizer, backbone.config)
    assert again.tokenizer.pad_token_id == 1
    torch.testing.assert_close(again(some_prompts(again), batch_of(again)).logits[0, :2], with_padding)


def test_a_tokenizer_without_an_end_is_refused():
    backbone = make_backbone("gpt2")
    backbone.tokenizer.eos_token = None
    with pytest.raises(BackboneError, match=r"tiny-gpt2 has a tokenizer without an end-of-sequence token"):
        FrozenBackbone(backbone.model, backbone.tokenizer, backbone.config)


# -- loading and identity ---------------------------------------------------------------------------------------------


@pytest.fixture
def folder(any_backbone, tmp_path):
    """A folder with one model of every family, as save_pretrained leaves it."""
    return saved(any_backbone, tmp_path / "model")


def saved(backbone, path):
    backbone.model.save_pretrained(path)
    backbone.tokenizer.save_pretrained(path)
    return path


def load(path, **changes):
    return load_backbone(BackboneConfig(name=str(path), **{"device": "cpu", **changes}))


def test_a_saved_folder_loads_and_answers_the_same(any_backbone, folder):
    loaded = load(folder)
    for name, p in any_backbone.model.named_parameters():
        assert torch.equal(loaded.model.get_parameter(name), p), name
    any_backbone.model.double()
    loaded.model.double()  # a loaded model may attend with another kernel, which rounds otherwise
    prompts, batch = some_prompts(any_backbone), batch_of(any_backbone)
    own = any_backbone(prompts, batch).logits
    # The norms of transformers round to float32 even then; those of a loaded model do not.
    torch.testing.assert_close(loaded(prompts, batch_of(loaded)).logits, own, atol=1e-5, rtol=0)
    assert loaded.generate(prompts, batch, 6) == any_backbone.generate(prompts, batch, 6)


def test_bfloat16_changes_the_numbers_and_not_the_identity(any_backbone, folder):
    loaded = load(folder, dtype="bfloat16")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.fingerprint() == any_backbone.fingerprint() == load(folder).fingerprint()
    prompts = some_prompts(loaded).requires_grad_()
    batch = batch_of(loaded)
    task_loss(loaded(prompts, batch).logits, batch.labels).backward()
    assert prompts.grad.dtype == torch.float32


def test_a_name_alone_is_enough(backbone, tmp_path):
    assert load_backbone(str(saved(backbone, tmp_path / "model"))).fingerprint() == backbone.fingerprint()


def test_auto_takes_bfloat16_only_where_the_processor_multiplies_it(backbone, tmp_path):
    native = multiplies_bfloat16(torch.device("cpu"))
    loaded = load(saved(backbone, tmp_path / "model"), dtype="auto")
    assert loaded.model.dtype == (torch.bfloat16 if native else torch.float32)


def test_different_models_have_different_fingerprints():
    prints = {make_backbone(family, seed).fingerprint() for family in FAMILIES for seed in (0, 1)}
    assert len(prints) == 2 * len(FAMILIES)
    assert make_backbone("t5", seed=0).fingerprint() == make_backbone("t5", seed=0).fingerprint()


def test_another_vocabulary_is_another_model(backbone):
    other = make_backbone("t5")
    other.tokenizer.add_tokens(["zebra"])
    assert other.fingerprint() != backbone.fingerprint()


def test_a_name_that_nothing_carries_is_said_in_one_line():
    with pytest.raises(BackboneError) as error:
        load("nobody/no-such-model")
    message = str(error.value)
    assert message.startswith("the backbone 'nobody/no-such-model' cannot be loaded: ")
    assert message.endswith("Give a Hugging Face id, a folder with config.json, or `embedded`.")
    assert "Traceback" not in message
    assert "\n" not in message


@pytest.mark.parametrize("device", ["tpu9", "", "cuda:99", "hpu:77", "meta"])
def test_a_device_that_does_not_exist_is_refused_by_its_name(device, backbone, tmp_path):
    with pytest.raises(BackboneError) as error:
        load(saved(backbone, tmp_path / "model"), device=device)
    message = str(error.value)
    assert message.startswith(f"the device {device!r} cannot be used: ")
    assert message.endswith(". Try cpu or auto.")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("rank", "device"),
    [
        pytest.param(None, "cuda", id="one process"),
        pytest.param("1", "cuda:1", id="the second of two"),
        pytest.param("2", "cuda:0", id="more processes than GPUs"),
    ],
)
def test_each_process_has_a_gpu_of_its_own(rank, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert _device("auto") == torch.device(device)
    assert _device("cpu") == torch.device("cpu")


def test_damaged_weights_are_said_and_not_shown_as_a_traceback(backbone, tmp_path):
    path = saved(backbone, tmp_path / "model")
    (path / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(BackboneError, match=r"cannot be loaded: .*header"):
        load(path)


def test_weights_of_another_shape_are_refused(backbone, tmp_path):
    path = saved(backbone, tmp_path / "model")
    weights = load_file(path / "model.safetensors")
    weights["encoder.final_layer_norm.weight"] = torch.ones(3)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"cannot be loaded: "):
        load(path)


def test_missing_weights_are_never_filled_with_random_numbers(backbone, tmp_path):
    path = saved(backbone, tmp_path / "model")
    weights = load_file(path / "model.safetensors")
    del weights["encoder.final_layer_norm.weight"], weights["decoder.final_layer_norm.weight"]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"lacks 2 of its weights, among them 'decoder\.final_layer_norm\.weight'"):
        load(path)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_without_its_tokenizer_is_refused(family, tmp_path):
    make_backbone(family).model.save_pretrained(tmp_path / "model")
    with pytest.raises(BackboneError, match=r"its tokenizer knows \d+ pieces|cannot be loaded"):
        load(tmp_path / "model")
