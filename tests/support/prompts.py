"""Prompts of random numbers."""

import torch

from mptune.prompts.card import Card
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.vectors import TaskVectors


def random_prompt(backbone, tasks, length=3, seed=0):
    random = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=random)

    card = Card(
        stage="target",
        tasks=tuple(t.without_paths() for t in tasks),
        backbone=backbone.config.name,
        fingerprint=backbone.fingerprint,
    )
    k, d = len(tasks), backbone.width
    return MultitaskPrompt(draw(length, d), TaskVectors(draw(k, length, 1), draw(k, 1, d)), card)
