"""Logits that can be told apart: of label words, in float32, whatever type a model computes in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor


@contextmanager
def exact_logits(head: Any, tokens: Tensor) -> Iterator[None]:
    """Let an output layer answer in float32, and compute the logits of some tokens in it.

    Bfloat16 tells logits around 20 apart by 0.125; whatever a model does to them afterwards happens in float32 too.
    """

    def answer(_: Any, given: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        bias = None if getattr(head, "bias", None) is None else head.bias[tokens].float()
        return logits.float().index_copy(-1, tokens, F.linear(given[0].float(), head.weight[tokens].float(), bias))

    handle = head.register_forward_hook(answer)
    try:
        yield
    finally:
        handle.remove()
