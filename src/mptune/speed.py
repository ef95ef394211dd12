"""What makes a frozen transformer faster on a processor without changing what it computes.

Each piece has its measurement in docs/LOG.md (2026-11-20, speed). Nothing here knows of prompts or tasks.
"""

import ctypes
import platform
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

# One more pass of the embedded backbone, forward and back, costs what 140 tokens cost (docs/LOG.md, 2026-11-20).
PASS_COST = 140

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of the GNU C library


def like_lengths(costs: Sequence[int], pass_cost: int) -> list[list[int]]:
    """Return the rows of a batch in groups whose separate forward passes cost least, padding included.

    Args:
        costs: tokens of each row without padding.
        pass_cost: what one more forward pass costs, in tokens.
    """
    order = sorted(range(len(costs)), key=lambda row: costs[row])
    # cheapest[n]: the least cost of the n shortest rows, and where its last group begins
    cheapest = [(0, 0)]
    for end in range(1, len(order) + 1):
        longest = costs[order[end - 1]]
        cheapest.append(min((cheapest[s][0] + pass_cost + (end - s) * longest, s) for s in range(end)))
    groups, end = [], len(order)
    while end:
        start = cheapest[end][1]
        groups.append(order[start:end])
        end = start
    return groups


def keep_pages() -> None:
    """Let the allocator keep what a step frees for the next one; for programs, once at their start.

    The GNU C library gives large blocks back to the system, which maps and clears new ones in the next step.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # blocks up to this size lie in the heap; more is refused
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # which never shrinks


def fuse(model: nn.Module) -> None:
    """Replace modules of T5's family that take many passes over their input by ones that take few."""
    child: Any
    for module in model.modules():
        for name, child in module.named_children():
            kind = type(child).__name__
            if kind in ("T5LayerNorm", "MT5LayerNorm", "UMT5LayerNorm"):
                setattr(module, name, RMSNorm(child.weight, child.variance_epsilon))
            elif kind == "NewGELUActivation":
                setattr(module, name, nn.GELU(approximate="tanh"))


class RMSNorm(nn.Module):
    """``x / rms(x) * weight`` for a weight that does not learn."""

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, x: Tensor) -> Tensor:
        """Return x scaled along its last axis. [..., D] -> [..., D]"""
        return _Scale.apply(x, self.weight, self.eps)  # type: ignore[no-any-return, no-untyped-call]


class _Scale(torch.autograd.Function):
    """RMS normalisation in two passes forward and four back; composed of torch's own functions it takes a dozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact)  # [..., 1]
        scale = torch.rsqrt(size.square() / x.shape[-1] + eps)
        ctx.save_for_backward(x, weight, scale)
        return (x * scale.to(x.dtype)).mul_(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        # y = x s w with s = (mean x² + ε)^(-1/2):  dL/dx = s (g w) - x s³ mean(x g w)
        x, weight, scale = ctx.saved_tensors
        inner = grad * weight
        along = torch.linalg.vecdot(inner, x).unsqueeze(-1).to(scale.dtype) / x.shape[-1]
        return inner.mul_(scale.to(x.dtype)).addcmul_(x, (scale**3 * along).to(x.dtype), value=-1), None, None
