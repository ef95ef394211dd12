"""DePT: a shorter prompt, and in place of the rest a low-rank update of the embedded text."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from mptune.backbone import Batch, FrozenBackbone
from mptune.config import DeptConfig
from mptune.prompts import sample_vocabulary


class Dept(nn.Module):
    """A prompt [L, D] before the text, and ``s / √r · A B`` added to it, row t to the token at position t.

    Source: Shi and Lipani 2024 (arXiv:2309.05173), section 3.2. The update is in units of the embeddings' RMS, so that
    one learning rate serves models of different scale.
    """

    def __init__(self, backbone: FrozenBackbone, config: DeptConfig, positions: int, random: torch.Generator) -> None:
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
        """Return every row's prompt [B, L, D], and the batch with the update; tokens behind A's last row get none."""
        place = batch.mask.cumsum(1) - 1  # padding may stand on either side
        known = batch.mask * (place < len(self.a))  # [B, T]
        added = self.scale * (self.a @ self.b)[place.clamp(0, len(self.a) - 1)] * known[..., None]  # [B, T, D]
        return self.prompt.expand(len(batch.mask), *self.prompt.shape), replace(batch, added=added)
