"""Rows that nobody has labelled, with what teachers think of them: what a student learns from beside labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mptune.answers.evaluation import answer
from mptune.answers.reader import Reader
from mptune.config import EvaluateConfig
from mptune.model.backbone import Backbone
from mptune.model.batch import UNLABELLED, Pick
from mptune.model.encoding import Encoded, collate
from mptune.model.scoring import label_scores
from mptune.stages.losses import soft_label_loss
from mptune.stages.sampling import single_task


@dataclass(frozen=True)
class PseudoLabels:
    """Unlabelled rows of one task, and how likely each label word is to its teachers."""

    rows: Encoded
    odds: Tensor  # [N, C]

    @classmethod
    def of_teachers(
        cls, teachers: Sequence[tuple[Backbone, Tensor | Reader]], rows: Encoded, sharpening: float
    ) -> "PseudoLabels":
        """Return what teachers think of rows: ``p^s / Σ p^s`` of the mean p of their probabilities.

        Args:
            teachers: each a prompt [L, D] or what reads a batch, with the backbone that it stands before.

        Source: an ensemble that labels, Schick and Schütze 2021 (arXiv:2001.07676), section 3.3; sharpening, Berthelot
        et al. 2019 (arXiv:1905.02249), equation 7.
        """
        ranked = EvaluateConfig(scoring="labels")  # also of a task whose answers are written
        answered = [answer(backbone, [reader], [rows], ranked, labelled=False)[0] for backbone, reader in teachers]
        mean = torch.stack([each.probabilities for each in answered if each.probabilities is not None]).mean(0)
        return cls(rows, torch.nn.functional.normalize(mean**sharpening, p=1, dim=-1))

    def beside(self, labelled: Iterator[list[Pick]], batch_size: int, random: torch.Generator) -> Iterator[list[Pick]]:
        """Yield batches of labelled rows, each with as many unlabelled ones behind them, without end."""
        unlabelled = single_task(len(self.rows.inputs), batch_size, random)
        for some in labelled:
            yield [*some, *((UNLABELLED, row) for _, row in next(unlabelled))]

    def loss(self, picks: Sequence[Pick], backbone: Backbone, reader: Reader) -> Tensor:
        """Return the cross entropy of the unlabelled rows among picks against what the teachers think of them. []"""
        rows = [row for task, row in picks if task == UNLABELLED]
        prompts, batch = reader(collate([(0, row) for row in rows], [self.rows], backbone))
        return soft_label_loss(label_scores(backbone, prompts, batch), self.odds[rows].to(backbone.device))
