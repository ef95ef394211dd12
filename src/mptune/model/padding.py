"""Rows of unlike lengths side by side: where padding, prompts and texts stand, and groups of rows put together."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mptune.model.batch import Batch, Output


def prepend(prompts: Tensor, embedded: Tensor, mask: Tensor, *, left: bool) -> tuple[Tensor, Tensor]:
    """Put each example's soft prompt before its embedded input.

    Args:
        prompts: [B, L, D]
        embedded: [B, T, D]
        mask: 1 on tokens, 0 on padding. [B, T]
        left: whether padding stands on the left of the text, and then before the prompt: between the two it would
            push them apart wherever a model counts by place (ALiBi, sliding and chunked windows).

    Returns:
        The longer input [B, L + T, D] and its mask [B, L + T]; soft tokens are never masked.
    """
    soft = mask.new_ones(prompts.shape[:2])  # [B, L]
    together, mask = torch.cat([prompts, embedded], dim=1), torch.cat([soft, mask], dim=1)
    if not left or not prompts.shape[1]:
        return together, mask
    places = mask.argsort(dim=1, stable=True)  # padding first, the rest in its order
    return together.gather(1, places[..., None].expand_as(together)), mask.gather(1, places)


def joined(parts: Sequence[Output], groups: Sequence[Sequence[int]], batch: Batch, *, left: bool) -> Output:
    """Return the outputs of groups of rows as the output of their batch; what was not computed is zero."""
    places = torch.tensor([row for rows in groups for row in rows]).argsort()
    width, room = batch.input_ids.shape[1], batch.labels.shape[1]

    def join(tensors: Sequence[Tensor], size: int, *, left: bool = False) -> Tensor:
        missing = [size - t.shape[1] for t in tensors]
        padded = [F.pad(t, (0, 0, n, 0) if left else (0, 0, 0, n)) for t, n in zip(tensors, missing, strict=True)]
        return torch.cat(padded)[places]

    states = list(zip(*(part.hidden for part in parts), strict=True))
    text, label = states[: len(states) // 2], states[len(states) // 2 :]
    hidden = [*(join(s, width, left=left) for s in text), *(join(s, room) for s in label)]
    return Output(join([part.logits for part in parts], room), tuple(hidden))


def positions_of(mask: Tensor) -> Tensor:
    """Return position ids that skip padding, as `generate` computes them. [B, T] -> [B, T]"""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def shared_start(batch: Batch) -> tuple[Tensor, Batch]:
    """Return the N tokens that all rows of a batch begin with [1, N], and the rows without them, each at least a token.

    Args:
        batch: padded on the left.
    """
    starts = batch.input_ids.shape[1] - batch.mask.sum(1)  # [B]
    places = torch.arange(max(0, int(batch.mask.sum(1).min()) - 1), device=starts.device)
    firsts = batch.input_ids.gather(1, starts[:, None] + places)
    count = int((firsts == firsts[:1]).all(0).long().cumprod(0).sum())
    ids = batch.input_ids[:, count:]
    mask = torch.arange(ids.shape[1], device=starts.device) >= starts[:, None]
    return firsts[:1, :count], replace(batch, input_ids=ids, mask=mask.to(batch.mask))
