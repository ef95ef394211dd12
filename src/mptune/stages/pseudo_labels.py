"""Rows that nobody has labelled, with what teachers think of them: what a student learns from beside labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mptune.answers.evaluation import answer
from mptune.answers.reader import Reader
from mptune.config import EvaluateConfig
from mptune.model.backbone import Backbone
from mptune.model.batch import UNLABELLED, Batch, Pick
from mptune.model.encoding import Encoded, collate
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
        answered = [answer(b, [reader], [rows], EvaluateConfig(), labelled=False)[0] for b, reader in teachers]
        mean = torch.stack([a.probabilities for a in answered if a.probabilities is not None]).mean(0)
        return cls(rows, torch.nn.functional.normalize(mean**sharpening, p=1, dim=-1))

    def beside(self, labelled: Iterator[list[Pick]], batch_size: int, random: torch.Generator) -> Iterator[list[Pick]]:
        """Yield batches of labelled rows, each with as many unlabelled ones behind them, without end."""
        unlabelled = single_task(len(self.rows.inputs), batch_size, random)
        for some in labelled:
            yield [*some, *((UNLABELLED, row) for _, row in next(unlabelled))]

    def batch(self, picks: Sequence[Pick], backbone: Backbone) -> tuple[Batch, Tensor]:
        """Return the unlabelled rows among picks, and what the teachers think of each. Batch, [B, C]"""
        rows = [row for task, row in picks if task == UNLABELLED]
        return collate([(0, row) for row in rows], [self.rows], backbone), self.odds[rows].to(backbone.device)
