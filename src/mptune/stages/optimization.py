"""The optimizer with two speeds, and its schedule."""

import torch
from torch.optim.lr_scheduler import LambdaLR

from mptune.config import TrainingConfig
from mptune.prompts.prompt import MultitaskPrompt


def two_speed(
    prompt: MultitaskPrompt, config: TrainingConfig, shared_lr: float | None, task_lr: float | None
) -> torch.optim.AdamW:
    """Return AdamW over the shared prompt and the task vectors, each at its own rate.

    Args:
        shared_lr: of P*, already in the embeddings' unit; None freezes it.
        task_lr: of u and v, which are about one; None freezes them.

    Source: two-speed learning rates after Ponti et al. 2022 (arXiv:2202.13914), as Wang et al. 2023, appendix A.
    """
    groups = []
    for lr, parameters in ((shared_lr, [prompt.shared]), (task_lr, [*prompt.u, *prompt.v])):
        for parameter in parameters:
            parameter.requires_grad_(lr is not None)
        if lr is not None:
            groups.append({"params": parameters, "lr": lr})
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


def warmup_then_linear(optimizer: torch.optim.Optimizer, config: TrainingConfig, taken: int = 0) -> LambdaLR:
    """Return the schedule: up from zero over the warm-up's share of the steps, then down to zero.

    Args:
        taken: steps that a run to be gone on with has behind it.
    """
    warm = max(1, round(config.warmup * config.steps))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return max(0.0, (config.steps - step) / max(1, config.steps - warm))

    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])  # what torch asks of a schedule that does not begin at its start
    return LambdaLR(optimizer, factor, last_epoch=taken - 1)
