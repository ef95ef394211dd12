"""One frozen backbone of every family, against the same model asked in transformers' own way."""

import pytest
import torch
from transformers import (
    Lfm2Config,
    Lfm2ForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
)

from mptune.config import BackboneConfig
from mptune.errors import BackboneError
from mptune.model import backbone as module
from mptune.model import prefixes
from mptune.model.backbone import Backbone
from mptune.model.batch import IGNORE
from mptune.model.encoding import encode_inputs, encode_targets, pad_batch
from mptune.model.scoring import label_scores
from mptune.stages.losses import task_loss
from support.models import (
    FAMILIES,
    TARGETS,
    TEXTS,
    batch_of,
    choosing,
    doubled,
    make_backbone,
    make_tokenizer,
    some_prompts,
)

NEAR = 1e-6


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


def test_an_empty_prompt_gives_the_models_own_logits(exact):
    inputs = encode_inputs(exact, TEXTS, max_tokens=40, prompt_length=0, room=8)
    targets = encode_targets(exact, TARGETS, max_tokens=8)
    got = exact(some_prompts(exact, length=0), pad_batch(exact, [0, 1], inputs, targets)).logits
    for row, (text_ids, label_ids) in enumerate(zip(inputs, targets, strict=True)):
        own = own_logits(exact, text_ids, label_ids)
        torch.testing.assert_close(got[row, : len(label_ids)], own, atol=NEAR, rtol=0)


def test_a_prompt_made_of_a_texts_first_embeddings_reads_as_that_text(exact):
    whole = encode_inputs(exact, TEXTS, max_tokens=40, prompt_length=0, room=8)
    targets = encode_targets(exact, TARGETS, max_tokens=8)
    prompts = torch.stack([exact.embeddings[ids[:3]] for ids in whole])
    got = exact(prompts, pad_batch(exact, [0, 1], [ids[3:] for ids in whole], targets)).logits
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
    inputs = encode_inputs(exact, TEXTS[:1], max_tokens=40, prompt_length=0, room=8)
    targets = encode_targets(exact, TARGETS[1:], max_tokens=8)
    text, label = exact(some_prompts(exact, 1, 0), pad_batch(exact, [0], inputs, targets), hidden_layers=(-1,)).hidden
    own = own_output(exact, inputs[0], targets[0])
    if exact.is_encoder_decoder:
        own_text, own_label = own.encoder_hidden_states[-1], own.decoder_hidden_states[-1]
    else:
        width = len(inputs[0])
        own_text, own_label = own.hidden_states[-1][:, :width], own.hidden_states[-1][:, width - 1 : -1]
    torch.testing.assert_close(text, own_text, atol=NEAR, rtol=0)
    torch.testing.assert_close(label, own_label, atol=NEAR, rtol=0)


def test_hidden_states_do_not_include_the_prompt(exact):
    inputs = encode_inputs(exact, TEXTS, max_tokens=40, prompt_length=0, room=8)
    targets = encode_targets(exact, TARGETS, max_tokens=8)
    batch = pad_batch(exact, [0, 1], inputs, targets)
    hidden = exact(some_prompts(exact), batch, hidden_layers=(0, -1)).hidden
    text_shape, label_shape = (*batch.input_ids.shape, exact.width), (*batch.labels.shape, exact.width)
    assert [tuple(h.shape) for h in hidden] == [text_shape, text_shape, label_shape, label_shape]
    # Behind a prompt of the text's own first embeddings stand the states of the rest of that text.
    prompt = exact.embeddings[inputs[1][:3]][None]
    cut, _ = exact(prompt, pad_batch(exact, [0], [inputs[1][3:]], targets[1:]), hidden_layers=(-1,)).hidden
    whole, _ = exact(
        some_prompts(exact, 1, 0), pad_batch(exact, [0], inputs[1:], targets[1:]), hidden_layers=(-1,)
    ).hidden
    torch.testing.assert_close(cut, whole[:, 3:], atol=NEAR, rtol=0)


def test_no_layer_asked_for_means_no_hidden_states(backbone):
    assert backbone(some_prompts(backbone), batch_of(backbone)).hidden == ()


def test_padding_never_changes_logits_or_label_scores(exact):
    words = encode_targets(exact, ["not good", "not bad", "maybe"], max_tokens=8)
    prompts = some_prompts(exact)
    both = exact(prompts, batch_of(exact)).logits
    scores = label_scores(exact, prompts, choosing(batch_of(exact), [words] * 2))
    for row in (0, 1):
        alone = batch_of(exact, TEXTS[row : row + 1], TARGETS[row : row + 1])
        counted = alone.labels.shape[1]
        logits = exact(prompts[row : row + 1], alone).logits
        torch.testing.assert_close(both[row : row + 1, :counted], logits, atol=NEAR, rtol=0)
        own = label_scores(exact, prompts[row : row + 1], choosing(alone, [words]))
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
    words = encode_targets(exact, ["yes", "no"], max_tokens=8)
    prompts = some_prompts(exact)
    mixed = choosing(batch_of(exact, texts, targets), [words] * 2)
    logits, scores = exact(prompts, mixed).logits, label_scores(exact, prompts, mixed)
    assert (logits[0] - logits[1]).abs().max() > 0.01
    for row in (0, 1):
        alone = batch_of(exact, texts[:1], targets[:1])
        own = prompts[row : row + 1]
        torch.testing.assert_close(logits[row : row + 1], exact(own, alone).logits, atol=NEAR, rtol=0)
        own_scores = label_scores(exact, own, choosing(alone, [words]))
        torch.testing.assert_close(scores[row : row + 1], own_scores, atol=1e-5, rtol=0)


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


def passes(backbone, monkeypatch, pass_cost, tasks=None):
    """Logits, hidden states and the prompts' gradients of a batch, and the tasks of the rows of each forward pass."""
    monkeypatch.setattr(module, "PASS_COST", pass_cost)
    monkeypatch.setattr(prefixes, "PASS_COST", pass_cost)
    read, forward = [], type(backbone)._forward

    def noted(self, prompts, batch, hidden_layers, **more):
        assert len(prompts) == len(batch.tasks)
        read.append([batch.tasks[place] for place in batch.task_ids])
        return forward(self, prompts, batch, hidden_layers, **more)

    batch = batch_of(backbone, UNLIKE, UNLIKE_TARGETS, tasks)
    prompts = some_prompts(backbone, len(batch.tasks)).double().requires_grad_()
    with monkeypatch.context() as patch:
        patch.setattr(type(backbone), "_forward", noted)
        out = backbone(prompts, batch, hidden_layers=(-1, 1))
    task_loss(out.logits.double(), batch.labels).backward()
    return out, prompts.grad, batch, read


def test_t5_reads_rows_of_unlike_lengths_in_one_pass(monkeypatch):
    *_, read = passes(make_backbone("t5"), monkeypatch, pass_cost=0)
    assert read == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("tasks", [None, (7, 4, 4, 7, 7)], ids=["a prompt for each row", "two prompts"])
@pytest.mark.parametrize("any_backbone", ["bart", "marian", "gpt2", "llama"], indirect=True)  # T5 is not padded at all
def test_a_batch_read_in_groups_of_like_lengths_gives_the_outputs_and_gradients_of_one_pass(exact, tasks, monkeypatch):
    whole, gradient, batch, one = passes(exact, monkeypatch, 10**6, tasks)
    parts, summed, _, several = passes(exact, monkeypatch, 0, tasks)
    assert one == [list(tasks or range(5))]
    assert len(several) > 2
    assert sorted(task for rows in several for task in rows) == sorted(*one)
    assert_same(parts, whole, batch)
    torch.testing.assert_close(summed, gradient, atol=NEAR, rtol=0)
    assert gradient.abs().min() > 0


def read_by_tasks(backbone, monkeypatch, *, shared, tasks=(7, 7, 4, 4, 7), length=3, texts=UNLIKE):
    """Outputs and the prompts' gradients of five rows of two tasks, and how many rows each call of the model had."""
    monkeypatch.setattr(module, "PASS_COST", 0 if shared else 10**6)
    monkeypatch.setattr(prefixes, "PASS_COST", 0 if shared else 10**6)
    monkeypatch.setattr(module, "like_lengths", lambda costs, cost: [list(range(len(costs)))])
    batch = batch_of(backbone, texts, UNLIKE_TARGETS, tasks)
    prompts = some_prompts(backbone, len(batch.tasks), length).double().requires_grad_()
    rows, forward = [], backbone.model.forward
    backbone.model.forward = lambda *a, **k: rows.append(tuple(k["inputs_embeds"].shape[:2])) or forward(*a, **k)
    out = backbone(prompts, batch, hidden_layers=(-1, 1, 0))
    backbone.model.forward = forward
    masks = [batch.mask.bool()] * 3 + [batch.labels != IGNORE] * 3  # what stands at padding means nothing
    hidden = sum(h[mask].pow(2).sum() for h, mask in zip(out.hidden, masks, strict=True))
    (out.logits[batch.labels != IGNORE].logsumexp(-1).sum() + hidden).backward()
    return out, prompts.grad, rows, batch


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
    backbone = doubled(Backbone(make(), tokenizer, BackboneConfig(name="other", device="cpu")))
    alike = ["the sky is blue", "the dog ran fast", "a cat sat on", "good bad fine awful", "yes no maybe true"]
    alone, _, _, batch = read_by_tasks(backbone, monkeypatch, shared=False, length=8, texts=alike)
    assert batch.mask.all()  # behind a shared prompt, padding is for those who count by position ids
    shared, _, rows, _ = read_by_tasks(backbone, monkeypatch, shared=True, length=8, texts=alike)
    width = batch.input_ids.shape[1] + batch.labels.shape[1]
    assert rows == [(2, 8), (5, width if reads_once else 8 + width)]
    again = read_by_tasks(backbone, monkeypatch, shared=True, length=8, texts=alike)[2]
    assert again == (rows if reads_once else rows[1:])  # what cannot be shared is not tried twice
    counted = batch.labels != IGNORE
    torch.testing.assert_close(shared.logits[counted], alone.logits[counted], atol=1e-5, rtol=0)


def test_only_the_prompt_receives_gradients(any_backbone):
    prompts = some_prompts(any_backbone).requires_grad_()
    batch = batch_of(any_backbone)
    task_loss(any_backbone(prompts, batch).logits, batch.labels).backward()
    assert (prompts.grad.abs().amax(dim=-1) > 0).all()
    for name, p in any_backbone.model.named_parameters():
        assert not p.requires_grad, name
        assert p.grad is None, name


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "llama"])  # Llama has no dropout
def test_dropout_is_off_until_it_is_switched_on(family):
    backbone = make_backbone(family)
    backbone = Backbone(backbone.model.train(), backbone.tokenizer, backbone.config)
    prompts, batch = some_prompts(backbone), batch_of(backbone)
    first = backbone(prompts, batch).logits
    assert torch.equal(backbone(prompts, batch).logits, first)
    backbone.set_dropout(True)
    assert not torch.allclose(backbone(prompts, batch).logits, first, atol=1e-3)
    backbone.set_dropout(False)
    assert torch.equal(backbone(prompts, batch).logits, first)


def test_a_tokenizer_without_padding_pads_with_its_end():
    backbone = make_backbone("gpt2")
    with_padding = backbone(some_prompts(backbone), batch_of(backbone)).logits[0, :2]
    backbone.tokenizer.pad_token = None
    again = Backbone(backbone.model, backbone.tokenizer, backbone.config)
    assert again.tokenizer.pad_token_id == 1
    torch.testing.assert_close(again(some_prompts(again), batch_of(again)).logits[0, :2], with_padding)


def test_a_tokenizer_without_an_end_is_refused():
    backbone = make_backbone("gpt2")
    backbone.tokenizer.eos_token = None
    with pytest.raises(BackboneError, match=r"tiny-gpt2 has a tokenizer without an end-of-sequence token"):
        Backbone(backbone.model, backbone.tokenizer, backbone.config)
