"""A tiny T5 that has learnt something, so that a prompt has something to find.

Behind the word "quite" it tells good, fast and blue (yes) from bad, slow, awful and red (no); without that word it
always says no. A toy task does not contain the word, so the bare backbone is right on half of it, and a prompt that
asks for the answer on much more.
"""

import functools
import random

import torch

from mptune.config import DistillConfig, TeachConfig
from mptune.model.backbone import Backbone
from mptune.model.encoding import encode_inputs, encode_targets, pad_batch
from mptune.prompts.prompt import MultitaskPrompt
from mptune.stages.distillation import distill
from mptune.stages.teachers import teach
from support.models import WORDS, make_backbone

YES = ("good", "fast", "blue")
NO = ("bad", "slow", "awful", "red")


@functools.cache
def trained_backbone() -> Backbone:
    """The backbone; one for the whole session, since nothing may change it."""
    backbone, draw = make_backbone("t5"), random.Random(0)
    backbone.model.requires_grad_(True)
    optimizer = torch.optim.AdamW(backbone.model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=200)
    for _ in range(200):
        texts, targets = zip(*(_example(draw) for _ in range(32)), strict=True)
        inputs = encode_inputs(backbone, texts, max_tokens=64, prompt_length=0, room=1)
        batch = pad_batch(backbone, [0] * 32, inputs, encode_targets(backbone, targets, max_tokens=8))
        # By transformers itself: our forward pass has no gradients for weights.
        loss = backbone.model(input_ids=batch.input_ids, attention_mask=batch.mask, labels=batch.labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    optimizer.zero_grad()
    backbone.model.requires_grad_(False)
    return backbone


def untrained_source(tasks, rank: int = 1) -> MultitaskPrompt:
    """A multitask prompt whose tasks differ, without the time it takes to distill one."""
    teachers = [teach(task, trained_backbone(), TeachConfig(prompt_length=4, steps=0)) for task in tasks]
    return distill(tasks, teachers, trained_backbone(), DistillConfig(steps=0, noise=0.5, rank=rank))


def _example(draw: random.Random) -> tuple[str, str]:
    asked, right = draw.random() < 0.6, draw.random() < 0.5
    words = ["quite"] * asked + [draw.choice(["text", "mood", "colour", "a"])]
    words += draw.choices(WORDS[:20], k=draw.randint(2, 4))
    words += [draw.choice(YES if right else NO), str(draw.randint(0, 250))]
    return " ".join(words), "yes" if asked and right else "no"
