"""DePT: a shorter prompt, and in place of the rest a low-rank update of the embedded text."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mptune.comparison.config import DeptConfig
from mptune.comparison.systems import Sources, System, systems_of
from mptune.comparison.trials import Trial
from mptune.model.backbone import Backbone
from mptune.model.batch import Batch
from mptune.prompts.vectors import sample_vocabulary
from mptune.stages.tuning import ParameterGroups, Tuned, tune
from mptune.tasks.data import TaskRows
from mptune.tasks.task import Task


def dept(trial: Trial, sources: Sources) -> list[System]:
    """A shorter prompt, and a low-rank update of the embedded text."""
    (rows,), backbone = trial.targets, sources.backbone(trial.contender.settings)
    config: DeptConfig = trial.config
    return systems_of(tune_dept(rows, backbone, config, out=trial.out), config.prompt_length)


def tune_dept(task: Task | TaskRows, backbone: Backbone, config: DeptConfig, *, out: Path | None = None) -> Tuned:
    """Return a short prompt with a low-rank update of the embedded text."""
    positions = TaskRows.of(task).task.max_input_tokens or config.max_input_tokens
    reads = Dept(backbone, config, positions, torch.Generator().manual_seed(config.seed))
    groups: ParameterGroups = [
        {"params": [reads.prompt], "lr": config.lr * backbone.embedding_rms},
        {"params": [reads.a, reads.b], "lr": config.low_rank_lr},
    ]
    return tune("dept", reads, groups, [task], backbone, config, config.prompt_length, out)


class Dept(nn.Module):
    """A prompt [L, D] before the text, and ``s / √r · A B`` added to it, row t to the token at position t.

    Source: Shi and Lipani 2024 (arXiv:2309.05173), section 3.2. The update is in units of the embeddings' RMS, so that
    one learning rate serves models of different scale.
    """

    def __init__(self, backbone: Backbone, config: DeptConfig, positions: int, random: torch.Generator) -> None:
        """Start at a vocabulary sample, and at an update of zero.

        Args:
            positions: of tokens that have an update; those behind them, in longer texts, have none.
        """
        super().__init__()
        self.prompt = nn.Parameter(sample_vocabulary(backbone.embeddings, config.prompt_length, random))  # [L, D]
        self.a = nn.Parameter(torch.randn(positions, config.rank, generator=random))  # [T, R]
        self.b = nn.Parameter(torch.zeros(config.rank, backbone.width))  # [R, D]
        self.scale = config.scale * backbone.embedding_rms / config.rank**0.5

    def forward(self, batch: Batch) -> tuple[Tensor, Batch]:
        """Return the prompt of all rows [1, L, D], and the batch with the update; tokens behind A's rows get none."""
        place = batch.mask.cumsum(1) - 1  # padding may stand on either side
        known = batch.mask * (place < len(self.a))  # [B, T]
        added = self.scale * (self.a @ self.b)[place.clamp(0, len(self.a) - 1)] * known[..., None]  # [B, T, D]
        return self.prompt[None], replace(batch.of_one_prompt(), added=added)
