"""The losses: two that learn from labels, two that learn from teachers, each a mean over what counts."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mptune.model.backbone import Backbone
from mptune.model.batch import IGNORE, Batch
from mptune.model.scoring import label_scores


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """L_PLM, cross entropy per label token over the vocabulary, in nats. [B, S, V], [B, S] -> []"""
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORE)


def label_loss(scores: Tensor, answers: Tensor) -> Tensor:
    """Cross entropy per row among its own label words, in nats; rows without any (free text) do not count.

    An answer is the best of a task's label words, and `task_loss` spends most of its first steps on the other
    tokens of the vocabulary. T-Few's length-normalised loss is its like (Liu et al. 2022, arXiv:2205.05638).

    Args:
        scores: of each row's label words, as `label_scores` ranks them; -inf where a row has fewer. [B, C]
        answers: the right one's place, IGNORE for free text. [B]

    Returns:
        The mean over rows with label words; zero where there are none. []
    """
    labelled = answers != IGNORE
    # Nothing is asked of the numbers on the way: a GPU would be waited for.
    total = F.cross_entropy(scores.masked_fill(~labelled[:, None], 0), answers, ignore_index=IGNORE, reduction="sum")
    return total / labelled.sum().clamp(min=1)


def soft_label_loss(scores: Tensor, odds: Tensor) -> Tensor:
    """Cross entropy of a row's label words against what teachers think of them, in nats. [B, C], [B, C] -> []"""
    return F.cross_entropy(scores, odds)


def supervised_loss(backbone: Backbone, prompts: Tensor, batch: Batch, logits: Tensor, label_weight: float) -> Tensor:
    """Return what a batch's labels say: ``L_PLM + label_weight * L_labels``. []

    Args:
        prompts: of the batch's tasks. [K, L, D]
        logits: the backbone's for this batch. [B, S, V]
    """
    (loss,) = supervised_losses(backbone, prompts, batch, logits, label_weight, [len(batch.labels)])
    return loss


def supervised_losses(
    backbone: Backbone, prompts: Tensor, batch: Batch, logits: Tensor, label_weight: float, sizes: Sequence[int]
) -> list[Tensor]:
    """As `supervised_loss`, for each of the parts of a batch that are so many rows long."""
    parts = zip(torch.split(logits, list(sizes)), torch.split(batch.labels, list(sizes)), strict=True)
    losses = [task_loss(*part) for part in parts]
    if not label_weight or batch.answers is None or not any(batch.choices):
        return losses
    scores = label_scores(backbone, prompts, batch, logits)
    ranked = zip(torch.split(scores, list(sizes)), torch.split(batch.answers, list(sizes)), strict=True)
    return [loss + label_weight * label_loss(*part) for loss, part in zip(losses, ranked, strict=True)]


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
