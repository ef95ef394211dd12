"""T5's family end to end in one matrix gives what transformers gives, and gradients that finite differences confirm."""

import copy

import pytest
import torch
from transformers import MT5Config, MT5ForConditionalGeneration, T5Config, T5ForConditionalGeneration

from mptune.model.encoding import encode_inputs, encode_targets, pad_batch
from mptune.model.t5 import Layout, PackedT5, _CrossAttention, _FeedForward, _Norm, _SelfAttention
from support.models import exact_norms, make_backbone

SIZES = dict(vocab_size=50, d_model=12, d_kv=4, d_ff=20, num_layers=2, num_heads=3, decoder_start_token_id=0)
MODELS = {
    "t5 v1.0": lambda: T5ForConditionalGeneration(T5Config(**SIZES, feed_forward_proj="relu")),
    "t5 v1.1": lambda: T5ForConditionalGeneration(
        T5Config(**SIZES, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    ),
    "one decoder layer": lambda: T5ForConditionalGeneration(T5Config(**SIZES, num_decoder_layers=1)),
    "mt5": lambda: MT5ForConditionalGeneration(MT5Config(**SIZES, tie_word_embeddings=False)),
}
TEXT = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]])
LABEL = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])


@pytest.fixture(params=MODELS)
def model(request, monkeypatch):
    """A model whose every weight counts, in float64."""
    exact_norms(monkeypatch)
    torch.manual_seed(0)
    made = MODELS[request.param]().double().train(False).requires_grad_(False)
    for weight in made.parameters():
        weight.add_(0.3 * torch.randn_like(weight))
    return made


def theirs(model, embedded, mask, ids, layers):
    out = model(
        inputs_embeds=embedded, attention_mask=mask, decoder_input_ids=ids, output_hidden_states=True, use_cache=False
    )
    return out.logits, [out.encoder_hidden_states[i] for i in layers], [out.decoder_hidden_states[i] for i in layers]


def ours(model, embedded, mask, ids, counted, layers):
    packed = PackedT5(model)
    text, label = packed.layout(mask), packed.layout(counted)
    read = packed.encode(embedded, text)
    said = packed.decode(ids, label, text.apart(read[-1]), mask)
    logits = label.apart(packed.logits(said[-1]))
    return logits, [text.apart(read[i]) for i in layers], [label.apart(said[i]) for i in layers]


@pytest.mark.parametrize("padded", [True, False])
def test_logits_states_and_gradients_are_those_of_transformers(model, padded):
    draw = torch.Generator().manual_seed(1)
    mask, counted = (TEXT, LABEL) if padded else (torch.ones_like(TEXT), torch.ones_like(LABEL))
    embedded = torch.randn(3, 7, 12, dtype=torch.float64, generator=draw)
    ids = torch.randint(50, (3, 4), generator=draw)
    weights = torch.randn(3, 4, 50, dtype=torch.float64, generator=draw) * counted[:, :, None]
    layers, found = (0, 1, -1), []
    reference = copy.deepcopy(model)
    for ask in (
        lambda x: theirs(reference, x, mask, ids, layers),
        lambda x: ours(model, x, mask, ids, counted, layers),
    ):
        leaf = embedded.clone().requires_grad_()
        logits, read, said = ask(leaf)
        states = [h * mask[:, :, None] for h in read] + [h * counted[:, :, None] for h in said]
        ((logits * weights).sum() + sum(h.pow(3).sum() for h in states)).backward()
        found.append([logits.detach() * counted[:, :, None], *states, leaf.grad * mask[:, :, None]])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, atol=1e-9, rtol=1e-9)
        assert one.abs().max() > 0.1


def test_what_stands_at_padding_is_never_read(model):
    draw = torch.Generator().manual_seed(1)
    embedded = torch.randn(3, 7, 12, dtype=torch.float64, generator=draw)
    ids = torch.randint(50, (3, 4), generator=draw)
    clean, *_ = ours(model, embedded, TEXT, ids, LABEL, ())
    spoilt, *_ = ours(
        model, embedded.masked_fill(TEXT[:, :, None] == 0, torch.nan), TEXT, ids.masked_fill(LABEL == 0, 49), LABEL, ()
    )
    assert torch.equal(clean, spoilt)
    assert not spoilt[LABEL == 0].any()


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-4), (torch.bfloat16, 0.15)])
def test_in_smaller_types_it_differs_by_rounding(dtype, near):
    torch.manual_seed(0)
    model = MODELS["t5 v1.1"]().train(False).requires_grad_(False)
    for weight in model.parameters():
        weight.add_(0.1 * torch.randn_like(weight))
    embedded, ids = torch.randn(3, 7, 12), torch.randint(50, (3, 4))
    exact, *_ = theirs(model, embedded, TEXT, ids, ())
    small, *_ = ours(model.to(dtype), embedded.to(dtype), TEXT, ids, LABEL, ())
    assert small.dtype == dtype
    counted = LABEL.bool()
    assert (small[counted].float() - exact[counted]).abs().max() < near * exact[counted].abs().max()


# -- each part's own gradient -----------------------------------------------------------------------------------------


def numbers(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_norms_gradient_is_that_of_finite_differences():
    weight = numbers(6, seed=1)
    assert torch.autograd.gradcheck(lambda x: _Norm.apply(x, weight, 1e-3), (numbers(5, 6).requires_grad_(),))


def bias_of(group, heads):
    """Random numbers, and next to minus infinity at padding. [b, H, t, t]"""
    width = group.mask.shape[1]
    return numbers(1, heads, width, width, seed=2).masked_fill(group.mask[:, None, None] == 0, -1e9)


@pytest.mark.parametrize("group_cost", [0, 10**6])
@pytest.mark.parametrize("mask", [TEXT, torch.ones(2, 3, dtype=torch.long)])
def test_the_gradient_of_self_attention_is_that_of_finite_differences(mask, group_cost):
    rows, heads = Layout.of(mask, 2, group_cost), 2
    biases = [bias_of(group, heads) for group in rows.groups]
    assert len(rows.groups) == (3 if mask is TEXT and not group_cost else 1)

    def part(x):
        return _SelfAttention.apply(
            x, numbers(6, seed=3), numbers(3 * 8, 6, seed=4), numbers(6, 8, seed=5), biases, rows, heads, 1e-3
        )

    assert torch.autograd.gradcheck(part, (numbers(int(mask.sum()), 6).requires_grad_(),))


def cross(y, memory, label, heads=2):
    weights = [numbers(8, 6, seed=n) for n in (4, 5, 6)] + [numbers(6, 8, seed=7)]
    unseen = torch.where(torch.arange(5) < torch.tensor([[5], [3], [4]]), 0.0, -1e9)[:, None].double()
    return _CrossAttention.apply(y, numbers(6, seed=3), weights, memory, unseen, label, heads, 1e-3)


def test_the_gradients_of_cross_attention_are_those_of_finite_differences():
    label = Layout.of(LABEL, 2)
    inputs = numbers(int(LABEL.sum()), 6).requires_grad_(), numbers(3, 5, 6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda y, memory: cross(y, memory, label), inputs)


@pytest.mark.parametrize(("act", "gated"), [("gelu_new", True), ("gelu_new", False), ("relu", True), ("relu", False)])
def test_the_gradient_of_the_feed_forward_part_is_that_of_finite_differences(act, gated):
    def part(x):
        wi = numbers(10 * (1 + gated), 6, seed=4)
        return _FeedForward.apply(x, numbers(6, seed=3), wi, numbers(6, 10, seed=5), act, 1e-3)

    assert torch.autograd.gradcheck(part, (numbers(4, 6).requires_grad_(),))


def test_parts_change_neither_their_input_nor_the_gradient_they_are_given():
    rows, label = Layout.of(TEXT, 2), Layout.of(LABEL, 2)
    biases, memory = [bias_of(group, 2) for group in rows.groups], numbers(3, 5, 6, seed=1).requires_grad_()
    parts = (
        (12, lambda x: _Norm.apply(x, numbers(6, seed=3), 1e-3)),
        (12, lambda x: _FeedForward.apply(x, numbers(6, seed=3), numbers(20, 6), numbers(6, 10), "gelu_new", 1e-3)),
        (12, lambda x: _SelfAttention.apply(
            x, numbers(6, seed=3), numbers(24, 6), numbers(6, 8), biases, rows, 2, 1e-3
        )),
        (7, lambda x: cross(x, memory, label)),
    )  # fmt: skip
    for count, part in parts:
        x, grad = numbers(count, 6).requires_grad_(), numbers(count, 6, seed=9)
        before = x.detach().clone(), grad.clone(), memory.detach().clone()
        part(x).backward(grad)
        assert torch.equal(x.detach(), before[0])
        assert torch.equal(grad, before[1])
        assert torch.equal(memory.detach(), before[2])


# -- where tokens stand -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group_cost", [0, 10, 10**6])
@pytest.mark.parametrize("mask", [TEXT, LABEL, torch.ones(2, 3, dtype=torch.long)])
def test_tokens_come_back_to_their_places(mask, group_cost):
    rows = Layout.of(mask, 2, group_cost)
    x = numbers(*mask.shape, 4)
    assert torch.equal(rows.apart(rows.end_to_end(x)), x * mask[:, :, None])
    lengths = mask.flatten()[rows.places].sum(), len(rows.end_to_end(x)), sum(len(g.mask) for g in rows.groups)
    assert [int(n) for n in lengths] == [int(mask.sum()), int(mask.sum()), len(mask)]


def test_rows_are_grouped_by_what_their_attention_costs():
    mask = torch.tensor([[1] * 10, [1] * 2 + [0] * 8, [1] * 10, [1] + [0] * 9])
    # Two short rows among rows of ten: 2 * 100 entries of padding, less 2 * 4, against another group.
    assert [g.mask.tolist() for g in Layout.of(mask, 2, group_cost=191).groups] == [
        [[1] * 10] * 2,
        [[1, 0], [1, 1]],
    ]
    assert len(Layout.of(mask, 2, group_cost=193).groups) == 1


@pytest.mark.parametrize("group_cost", [0, 10, 10**6])
def test_pieces_leave_the_matrix_and_return_to_it(group_cost):
    heads, rows = 2, Layout.of(TEXT, 2, group_cost)
    total = int(TEXT.sum())
    for parts, out, back in ((3, "out", "back"), (1, "out_once", "back_once")):
        pieces = torch.arange((total + 1) * parts * heads)  # numbered
        for group in rows.groups:
            left = pieces[getattr(group, out)].view(parts, len(group.mask), heads, -1)
            assert (left >= total * parts * heads).equal((group.mask == 0)[None, :, None].expand_as(left))
            returned = left.flatten()[getattr(group, back)]
            own = slice(group.tokens.start * parts * heads, group.tokens.stop * parts * heads)
            assert torch.equal(returned, pieces[own])


# -- the model's own weights ------------------------------------------------------------------------------------------


def test_the_model_keeps_its_weights_their_names_and_its_memory():
    model = make_backbone("mt5").model
    before = {name: p.clone() for name, p in model.state_dict().items()}
    PackedT5(model)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], p) for name, p in before.items())
    attention = model.encoder.block[0].layer[0].SelfAttention
    parts = (attention.q.weight, attention.k.weight, attention.v.weight)
    assert len({p.untyped_storage().data_ptr() for p in parts}) == 1  # side by side: nothing is held twice


@pytest.mark.parametrize(
    ("family", "change", "computed"),
    [
        ("t5", lambda model: model, True),
        ("mt5", lambda model: model, True),
        ("bart", lambda model: model, False),
        ("llama", lambda model: model, False),
        ("t5", lambda model: setattr(model.config, "dense_act_fn", "silu"), False),
        ("t5", lambda model: model.lm_head.to(torch.float64), False),
    ],
)
def test_other_models_are_left_to_transformers(family, change, computed):
    model = make_backbone(family).model
    change(model)
    assert PackedT5.computes(model) is computed


def test_dropout_is_left_to_transformers():
    backbone = make_backbone("t5")
    ids = encode_inputs(backbone, ["the sky is blue"], max_tokens=8, prompt_length=2, room=2)
    batch = pad_batch(backbone, [0], ids, encode_targets(backbone, ["yes"], max_tokens=4))
    prompts = torch.ones(1, 2, backbone.width)
    still = [backbone(prompts, batch).logits for _ in range(2)]
    backbone.set_dropout(True)
    torch.manual_seed(0)
    moving = [backbone(prompts, batch).logits for _ in range(2)]
    assert torch.equal(*still)
    assert not torch.equal(*moving)
