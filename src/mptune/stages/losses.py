"""The three losses of the method, each a mean over the tokens that count."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from mptune.model.batch import IGNORE


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy per label token, in nats. [B, S, V], [B, S] -> []"""
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORE)


def logit_distillation(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """KL(teacher ‖ student) per label token, in nats; padding does not count.

    Args:
        student, teacher: logits over the vocabulary. [B, S, V]
        labels: token ids, IGNORE on padding. [B, S]
        temperature: both softmaxes divide by it. The result is multiplied by its square, so that the size of the
            gradient does not depend on it (Hinton et al. 2015, arXiv:1503.02531).

    Returns:
        The mean over the tokens that count. []

    Source: Wang et al. 2023, equation 3.
    """
    counted = labels != IGNORE  # [B, S]
    return temperature**2 * F.kl_div(
        F.log_softmax(student[counted].float() / temperature, dim=-1),
        F.log_softmax(teacher[counted].float() / temperature, dim=-1),
        log_target=True,
        reduction="batchmean",
    )


def hidden_distillation(student: Sequence[Tensor], teacher: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
    """Squared distance of the hidden states, per entry; padding does not count.

    Args:
        student, teacher: hidden states of the same layers in the same order, encoder layers on text tokens,
            decoder layers on label tokens. each [B, T or S, D]
        masks: 1 on the tokens that count. each [B, T or S]

    Returns:
        The sum over the layers of the mean over tokens and width. []

    Source: Wang et al. 2023, section 3.1, L_Hidden.
    """
    losses = [
        F.mse_loss(mine[mask.bool()].float(), taught[mask.bool()].float())
        for mine, taught, mask in zip(student, teacher, masks, strict=True)
    ]
    return sum(losses[1:], losses[0])
