"""ATTEMPT: every text gets its own mixture of source prompts beside the target's."""

import math

import torch
from torch import Tensor, nn

from mptune.backbone import Batch, FrozenBackbone
from mptune.config import AttemptConfig
from mptune.prompts import sample_vocabulary


class Attempt(nn.Module):
    """A target prompt that learns, frozen source prompts, and attention over all of them.

    Source: Asai et al. 2022 (arXiv:2205.11961), section 3.2.
    """

    def __init__(
        self, sources: Tensor, backbone: FrozenBackbone, config: AttemptConfig, random: torch.Generator
    ) -> None:
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
        """Return ``P_x = P + Σ_j a_j(x) P_j`` of every text x, and the batch. [B, L, D]"""
        embedded = self.backbone.embedded(batch).float()
        candidates = torch.cat([self.get_buffer("sources"), self.target[None]])  # the target too [K + 1, L, D]
        weights = self.weights(embedded, batch.mask, candidates)
        return self.target + torch.einsum("bk,kld->bld", weights, candidates), batch

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
