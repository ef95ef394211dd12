"""ATTEMPT: every text gets its own mixture of source prompts beside the target's."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from mptune.comparison.config import AttemptConfig
from mptune.comparison.systems import Sources, System, systems_of
from mptune.comparison.trials import Trial
from mptune.model.backbone import Backbone
from mptune.model.batch import Batch
from mptune.prompts.prompt import stack
from mptune.prompts.vectors import sample_vocabulary
from mptune.stages.tuning import ParameterGroups, Tuned, tune
from mptune.tasks.data import TaskRows
from mptune.tasks.task import Task


def attempt(trial: Trial, sources: Sources) -> list[System]:
    """A target prompt, and attention over it and the teachers for each text."""
    settings, (rows,) = trial.contender.settings, trial.targets
    teachers = sources.teachers(settings)
    prompts = stack(teachers)
    tuned = tune_attempt(prompts, rows, sources.backbone(settings), trial.config, out=trial.out)
    return systems_of(tuned, prompts.shape[1], [teacher.card for teacher in teachers])


def tune_attempt(
    sources: Tensor, task: Task | TaskRows, backbone: Backbone, config: AttemptConfig, *, out: Path | None = None
) -> Tuned:
    """Return a target prompt with attention over source prompts [K, L, D]."""
    reads = Attempt(sources.cpu(), backbone, config, torch.Generator().manual_seed(config.seed))
    attention = [*reads.down.parameters(), *reads.up.parameters(), *reads.norm.parameters()]
    groups: ParameterGroups = [
        {"params": [reads.target], "lr": config.lr * backbone.embedding_rms},
        {"params": attention, "lr": config.attention_lr},
    ]
    return tune("attempt", reads, groups, [task], backbone, config, sources.shape[1], out)


class Attempt(nn.Module):
    """A target prompt that learns, frozen source prompts, and attention over all of them.

    Source: Asai et al. 2022 (arXiv:2205.11961), section 3.2.
    """

    def __init__(self, sources: Tensor, backbone: Backbone, config: AttemptConfig, random: torch.Generator) -> None:
        """Start at a vocabulary sample.

        Args:
            sources: the source tasks' prompts. [K, L, D]
        """
        super().__init__()
        width = sources.shape[2]
        self.backbone = backbone  # no module: its weights are none of this one's parameters
        self.register_buffer("sources", sources.clone(), persistent=False)
        self.target = nn.Parameter(sample_vocabulary(backbone.embeddings, sources.shape[1], random))  # [L, D]
        self.down = nn.Linear(width, config.projection, bias=False)
        self.up = nn.Linear(config.projection, width, bias=False)
        for layer in (self.down, self.up):
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=random)
        self.norm = nn.LayerNorm(width)
        self.temperature = config.temperature or math.e * width

    def forward(self, batch: Batch) -> tuple[Tensor, Batch]:
        """Return ``P_x = P + Σ_j a_j(x) P_j`` of every text x [B, L, D], and the batch, each row with its own."""
        embedded = self.backbone.embed(batch.input_ids).float()
        candidates = torch.cat([self.get_buffer("sources"), self.target[None]])  # the target too [K + 1, L, D]
        weights = self.weights(embedded, batch.mask, candidates)
        return self.target + torch.einsum("bk,kld->bld", weights, candidates), batch.of_own_prompts()

    def weights(self, embedded: Tensor, mask: Tensor, candidates: Tensor) -> Tensor:
        """Return how much of each candidate prompt a text takes.

        Args:
            embedded: [B, T, D]
            mask: 1 on tokens, 0 on padding. [B, T]
            candidates: [J, L, D]

        Returns:
            They sum to one. [B, J]
        """
        text = embedded.masked_fill(mask[..., None] == 0, -torch.inf).amax(1)  # [B, D]
        query = self.norm(self.up(nn.functional.silu(self.down(text))))
        weights: Tensor = (query @ candidates.amax(1).T / self.temperature).softmax(-1)
        return weights
