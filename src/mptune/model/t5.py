"""The forward pass of T5's family on a processor, over rows laid end to end.

Transformers pads a batch to its longest row and multiplies the padding too. Here the N tokens of B rows are one matrix
[N, D], and only attention sees rows apart. Each part of a layer is one function with a gradient of its own, which goes
to its input alone: the weights do not learn. What each choice brought: docs/LOG.md, 2026-11-20: speed: T5 without
padding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mptune.model.grouping import like_lengths

FAMILY = ("t5", "mt5")
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "gelu_new": (
        lambda x: F.gelu(x, approximate="tanh"),
        lambda grad, x: torch.ops.aten.gelu_backward(grad, x, approximate="tanh"),
    ),
    "relu": (F.relu, lambda grad, x: torch.ops.aten.threshold_backward(grad, x, 0)),
}
# What another group costs a layer, forward and back, in entries of an attention matrix (docs/LOG.md,
# 2026-11-20: speed: T5 without padding).
GROUP_COST = 30_000


@dataclass(frozen=True)
class Group:
    """Layout of like lengths, whose attention is computed together.

    Keys, queries and values leave the matrix by one gather, and what attention makes of them returns by another; each
    gathered piece is one head of one token, d numbers.
    """

    tokens: slice  # of the rows, among the N
    mask: Tensor  # [b, t]
    out: Tensor  # from pieces of [N + 1, 3, H], of which the last is zero, to [3, b, H, t]
    out_once: Tensor  # from [N + 1, H] to [b, H, t]
    back: Tensor  # from [3, b, H, t] to [n, 3, H], for n tokens
    back_once: Tensor  # from [b, H, t] to [n, H]


@dataclass(frozen=True)
class Layout:
    """Where the N tokens of B rows stand in a padded batch; the rows of a group lie together."""

    mask: Tensor  # 1 on tokens [B, T]
    places: Tensor  # of the tokens among the B * T [N]
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, mask: Tensor, heads: int, group_cost: int = GROUP_COST) -> "Layout":
        """Return the places of a mask's ones, which stand on the left of each row.

        Args:
            heads: H.
            group_cost: of one group more, in entries of an attention matrix.
        """
        lengths = mask.sum(1)
        parts = like_lengths(lengths.square().tolist(), group_cost)
        spots = torch.arange(mask.numel(), device=mask.device).view(mask.shape)
        places = torch.cat([spots[row, : int(lengths[row])] for rows in parts for row in rows])
        groups, start = [], 0
        for rows in parts:
            own = mask[rows][:, : int(lengths[rows].max())]
            groups.append(_group(own, start, len(places), heads))
            start = groups[-1].tokens.stop
        return cls(mask, places, tuple(groups))

    def apart(self, x: Tensor) -> Tensor:
        """Return tokens in their padded rows; padding is zero. [N, C] -> [B, T, C]"""
        return x.new_zeros(self.mask.numel(), x.shape[1]).index_copy_(0, self.places, x).view(*self.mask.shape, -1)

    def end_to_end(self, x: Tensor) -> Tensor:
        """Return the tokens of padded rows. [B, T, C] -> [N, C]"""
        return x.flatten(0, 1).index_select(0, self.places)


def _group(mask: Tensor, start: int, total: int, heads: int) -> Group:
    size, width = mask.shape
    token = torch.full(mask.shape, total, device=mask.device)  # the zero at the end, where nothing stands
    token[mask.bool()] = torch.arange(start, start + int(mask.sum()), device=mask.device)
    part, head = torch.arange(3, device=mask.device), torch.arange(heads, device=mask.device)
    out_once = token[:, None] * heads + head[:, None]  # [b, H, t]
    out = token[:, None] * (3 * heads) + (part[:, None] * heads + head)[:, None, :, None]  # [3, b, H, t]
    row, spot = mask.nonzero().unbind(1)
    back_once = (row[:, None] * heads + head) * width + spot[:, None]  # [n, H]
    back = back_once[:, None] + part[:, None] * (size * heads * width)  # [n, 3, H]
    tokens = slice(start, start + len(row))
    return Group(tokens, mask, out.flatten(), out_once.flatten(), back.flatten(), back_once.flatten())


@dataclass(frozen=True)
class Layer:
    """The weights of one layer, those that read the same input side by side."""

    norms: tuple[Tensor, ...]  # of self-attention, of cross-attention in a decoder, of the feed-forward part, each [D]
    qkv: Tensor  # of self-attention [3 H d, D]
    out: Tensor  # [D, H d]
    cross: tuple[Tensor, ...]  # q, k, v [H d, D] and out [D, H d] of cross-attention; none in an encoder
    wi: Tensor  # the gate's and the other's, where there is a gate [2 F or F, D]
    wo: Tensor  # [D, F]


class PackedT5:
    """T5 and mT5 with the weights of a transformers model, and with its results."""

    def __init__(self, model: Any) -> None:
        config = model.config
        self._heads, self._eps, self._model = config.num_heads, config.layer_norm_epsilon, model
        self._act = config.dense_act_fn
        self._encoder = [_layer(block) for block in model.encoder.block]
        self._decoder = [_layer(block) for block in model.decoder.block]

    @staticmethod
    def computes(model: Any) -> bool:
        """Return whether a model is one of these, with all its weights in one type of numbers."""
        config = model.config
        known = config.model_type in FAMILY and config.dense_act_fn in ACTIVATIONS
        return known and len({p.dtype for p in model.parameters()}) == 1

    def layout(self, mask: Tensor) -> Layout:
        """Return where the tokens of texts stand. [B, T]"""
        return Layout.of(mask, self._heads)

    def encode(self, embedded: Tensor, text: Layout) -> list[Tensor]:
        """Return the encoder's states: its input, each layer's output, the last one normalised.

        Args:
            embedded: padded on the right. [B, T, D]
            text: where its N tokens stand.

        Returns:
            Each state of the tokens. [N, D]
        """
        states = [text.end_to_end(embedded)]
        biases = [self._bias(self._model.encoder, group) for group in text.groups]
        for layer in self._encoder:
            x = self._self_attention(states[-1], layer, text, biases)
            states.append(self._feed_forward(x, layer))
        states[-1] = self._norm(states[-1], self._model.encoder.final_layer_norm.weight)
        return states

    def decode(self, ids: Tensor, label: Layout, memory: Tensor, mask: Tensor) -> list[Tensor]:
        """Return the decoder's states, likewise.

        Args:
            ids: the decoder's input. [B, S]
            label: where its M tokens stand.
            memory: the encoder's output, zero at padding. [B, T, D]
            mask: of the encoder's input. [B, T]

        Returns:
            Each state of the tokens. [M, D]
        """
        states = [self._model.get_input_embeddings()(ids.flatten()[label.places])]
        # What stands behind a token is not seen, so padding is not either.
        biases = [self._bias(self._model.decoder, group, causal=True) for group in label.groups]
        unseen = _minus_infinity(mask, memory.dtype)[:, None]  # [B, 1, T]
        for layer in self._decoder:
            y = self._self_attention(states[-1], layer, label, biases)
            y = self._cross_attention(y, layer, label, memory, unseen)
            states.append(self._feed_forward(y, layer))
        states[-1] = self._norm(states[-1], self._model.decoder.final_layer_norm.weight)
        return states

    def logits(self, last: Tensor) -> Tensor:
        """Return the logits that follow from the decoder's last state. [M, D] -> [M, V]"""
        if getattr(self._model.config, "scale_decoder_outputs", False):
            last = last * last.shape[1] ** -0.5
        found: Tensor = self._model.lm_head(last)
        return found

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return _Norm.apply(x, weight, self._eps)  # type: ignore[no-any-return, no-untyped-call]

    def _self_attention(self, x: Tensor, layer: Layer, layout: Layout, biases: Sequence[Tensor]) -> Tensor:
        norm, heads, eps = layer.norms[0], self._heads, self._eps
        return _SelfAttention.apply(x, norm, layer.qkv, layer.out, biases, layout, heads, eps)  # type: ignore[no-any-return, no-untyped-call]

    def _feed_forward(self, x: Tensor, layer: Layer) -> Tensor:
        norm, act, eps = layer.norms[-1], self._act, self._eps
        return _FeedForward.apply(x, norm, layer.wi, layer.wo, act, eps)  # type: ignore[no-any-return, no-untyped-call]

    def _cross_attention(self, y: Tensor, layer: Layer, label: Layout, memory: Tensor, unseen: Tensor) -> Tensor:
        norm, heads, eps = layer.norms[1], self._heads, self._eps
        return _CrossAttention.apply(y, norm, layer.cross, memory, unseen, label, heads, eps)  # type: ignore[no-any-return, no-untyped-call]

    def _bias(self, stack: Any, group: Group, *, causal: bool = False) -> Tensor:
        """Return what all layers add to their attention: T5's bias by distance, and the mask. [1 or b, H, t, t]"""
        width = group.mask.shape[1]
        distance: Tensor = stack.block[0].layer[0].SelfAttention.compute_bias(width, width)  # [1, H, t, t]
        mask = torch.ones(width, width).tril() if causal else group.mask[:, None, None]
        # Contiguous: as it comes, every layer would add it against the grain.
        return (distance + _minus_infinity(mask, distance.dtype)).contiguous()


def _layer(block: Any) -> Layer:
    """Return the weights of a layer; those that are laid side by side stay the model's own, as parts of one tensor."""
    attention, dense = block.layer[0].SelfAttention, block.layer[-1].DenseReluDense
    cross = block.layer[1].EncDecAttention if len(block.layer) == 3 else None
    gated = [dense.wi_0, dense.wi_1] if hasattr(dense, "wi_0") else [dense.wi]
    return Layer(
        norms=tuple(part.layer_norm.weight for part in block.layer),
        qkv=_side_by_side([attention.q, attention.k, attention.v]),
        out=attention.o.weight,
        cross=tuple(linear.weight for linear in (cross.q, cross.k, cross.v, cross.o)) if cross else (),
        wi=_side_by_side(gated),
        wo=dense.wo.weight,
    )


def _side_by_side(linears: Sequence[torch.nn.Linear]) -> Tensor:
    joined = torch.cat([linear.weight.detach() for linear in linears])
    end = 0
    for linear in linears:
        start, end = end, end + len(linear.weight)
        linear.weight.data = joined[start:end]
    return joined


def _minus_infinity(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 0 where a mask is one, and a number that softmax takes for minus infinity where it is zero."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask == 0, torch.finfo(dtype).min)


def _with_zero(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``x @ weight`` and a row of zeros behind it. [N, C], [C, E] -> [N + 1, E]"""
    product = x.new_empty(len(x) + 1, weight.shape[1])
    torch.mm(x, weight, out=product[:-1])
    product[-1] = 0
    return product


def _normalise(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return ``x / rms(x) * weight`` and ``1 / rms(x)``. [N, D] -> [N, D], [N, 1]"""
    exact = torch.promote_types(x.dtype, torch.float32)
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact)
    scale = torch.rsqrt(size.square() / x.shape[-1] + eps)
    return (x * scale.to(x.dtype)).mul_(weight), scale


def _normalise_backward(grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    # y = x s w with s = (mean x² + ε)^(-1/2):  dL/dx = s (g w) - x s³ mean(x g w)
    inner = grad * weight
    along = torch.linalg.vecdot(inner, x).unsqueeze(-1).to(scale.dtype) / x.shape[-1]
    return inner.mul_(scale.to(x.dtype)).addcmul_(x, (scale**3 * along).to(x.dtype), value=-1)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        normed, scale = _normalise(x, weight, eps)
        ctx.save_for_backward(x, weight, scale)
        return normed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _normalise_backward(grad, *ctx.saved_tensors), None, None


class _SelfAttention(torch.autograd.Function):
    """``x + out(attention(norm(x)))``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm: Tensor, qkv: Tensor, out: Tensor, biases: Sequence[Tensor], layout: Layout,
        heads: int, eps: float,
    ) -> Tensor:  # fmt: skip
        normed, scale = _normalise(x, norm, eps)
        pieces = _with_zero(normed, qkv.t()).view(-1, qkv.shape[0] // (3 * heads))  # each one head of one token
        context = x.new_empty(len(x), out.shape[1])  # [N, H d]
        kept = []
        for group, bias in zip(layout.groups, biases, strict=True):
            size, width = group.mask.shape
            q, k, v = pieces.index_select(0, group.out).view(3, size, heads, width, -1)
            weights = (q @ k.transpose(-1, -2)).add_(bias).softmax(-1)  # [b, H, t, t]
            found = (weights @ v).view(-1, pieces.shape[1])
            context[group.tokens] = found.index_select(0, group.back_once).view(-1, out.shape[1])
            kept += [q, k, v, weights]
        ctx.save_for_backward(x, norm, qkv, out, scale, *kept)
        ctx.layout = layout
        return torch.addmm(x, context, out.t())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, norm, qkv, out, scale, *kept = ctx.saved_tensors
        pieces = _with_zero(grad, out).view(-1, kept[0].shape[-1])
        d_qkv = x.new_empty(len(x), qkv.shape[0])  # [N, 3 H d]
        for number, group in enumerate(ctx.layout.groups):
            q, k, v, weights = kept[4 * number : 4 * number + 4]
            d_found = pieces.index_select(0, group.out_once).view(q.shape)
            d_scores = torch.ops.aten._softmax_backward_data(d_found @ v.transpose(-1, -2), weights, -1, x.dtype)
            parts = torch.stack([d_scores @ k, d_scores.transpose(-1, -2) @ q, weights.transpose(-1, -2) @ d_found])
            d_qkv[group.tokens] = parts.view(-1, q.shape[-1]).index_select(0, group.back).view(-1, qkv.shape[0])
        d_x = _normalise_backward(d_qkv @ qkv, x, norm, scale).add_(grad)
        return d_x, None, None, None, None, None, None, None


class _CrossAttention(torch.autograd.Function):
    """``y + out(attention(norm(y), memory))``.

    A label has few tokens and a text has many, so the weights of keys and values are applied on the label's side:
    ``q · (W h) = (Wᵀ q) · h``, and ``Σ a W h = W Σ a h``.
    """

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, norm: Tensor, weights: Sequence[Tensor], memory: Tensor, unseen: Tensor, label: Layout,
        heads: int, eps: float,
    ) -> Tensor:  # fmt: skip
        batch, room = label.mask.shape
        width = memory.shape[-1]
        wq, wk, wv, out = weights
        wk, wv = wk.view(heads, -1, width), wv.view(heads, -1, width)  # [H, d, D]
        normed, scale = _normalise(y, norm, eps)
        q = label.apart(F.linear(normed, wq)).view(batch, room, heads, -1)
        asked = torch.einsum("bshd,hde->bshe", q, wk).reshape(batch, -1, width)  # [B, S H, D]
        seen_by = torch.baddbmm(unseen, asked, memory.transpose(1, 2)).softmax(-1)  # [B, S H, T]
        seen = seen_by @ memory  # [B, S H, D]
        context = torch.einsum("bshe,hde->bshd", seen.view(batch, room, heads, width), wv).flatten(2)
        ctx.save_for_backward(y, norm, wq, wk, wv, out, scale, memory, asked, seen_by)
        ctx.label = label
        return torch.addmm(y, label.end_to_end(context), out.t())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, norm, wq, wk, wv, out, scale, memory, asked, seen_by = ctx.saved_tensors
        (batch, room), width, heads = ctx.label.mask.shape, memory.shape[-1], len(wk)
        d_context = ctx.label.apart(grad @ out).view(batch, room, heads, -1)
        d_seen = torch.einsum("bshd,hde->bshe", d_context, wv).reshape(batch, -1, width)
        d_scores = torch.ops.aten._softmax_backward_data(d_seen @ memory.transpose(1, 2), seen_by, -1, y.dtype)
        # Of the keys, and of the values.
        d_memory = torch.cat([d_scores, seen_by], 1).transpose(1, 2) @ torch.cat([asked, d_seen], 1)
        d_asked = (d_scores @ memory).view(batch, room, heads, width)
        d_q = ctx.label.end_to_end(torch.einsum("bshe,hde->bshd", d_asked, wk).flatten(2))
        d_y = _normalise_backward(d_q @ wq, y, norm, scale).add_(grad)
        return d_y, None, None, d_memory, None, None, None, None


class _FeedForward(torch.autograd.Function):
    """``x + wo(act(wi_0(norm(x))) * wi_1(norm(x)))``; without a gate, ``x + wo(act(wi(norm(x))))``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Tensor, wi: Tensor, wo: Tensor, act: str, eps: float) -> Tensor:
        size = wo.shape[1]
        normed, scale = _normalise(x, norm, eps)
        inner = F.linear(normed, wi)
        active = ACTIVATIONS[act][0](inner[:, :size])
        ctx.save_for_backward(x, norm, wi, wo, scale, inner, active)
        ctx.act = act
        return torch.addmm(x, active * inner[:, size:] if len(wi) > size else active, wo.t())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, norm, wi, wo, scale, inner, active = ctx.saved_tensors
        size = wo.shape[1]
        d_active = grad @ wo
        d_inner = torch.empty_like(inner)
        if len(wi) > size:
            torch.mul(d_active, active, out=d_inner[:, size:])
            d_active *= inner[:, size:]
        d_inner[:, :size] = ACTIVATIONS[ctx.act][1](d_active, inner[:, :size])
        d_x = _normalise_backward(d_inner @ wi, x, norm, scale).add_(grad)
        return d_x, None, None, None, None, None
