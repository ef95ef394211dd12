"""Trainings that are stopped on purpose, and what their folders hold."""

import hashlib
import json
import signal
from functools import partial

import pytest
import torch

from mptune.config import TeachConfig
from mptune.model.backbone import Backbone
from mptune.stages.teachers import teach
from support.trained import trained_backbone

Quick = partial(TeachConfig, prompt_length=4, steps=8, validate_every=2, save_every=2, lr=0.3)
PROMPT = "prompt.safetensors"


def sha256(folder):
    return hashlib.sha256((folder / PROMPT).read_bytes()).hexdigest()


def steps_in(folder, key="validation"):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if key in line]


def interrupted_at(step, number=signal.SIGINT):
    """Send this process a signal in the middle of a step's forward pass; return what undoes it."""
    patch, forward, taken = pytest.MonkeyPatch(), Backbone.__call__, []

    def passed(self, *args):
        if torch.is_grad_enabled():
            taken.append(True)
            if len(taken) == step:
                signal.raise_signal(number)
        return forward(self, *args)

    patch.setattr(Backbone, "__call__", passed)
    return patch


def stop_early(task, out, config, step=3):
    backbone = trained_backbone()  # made first: its own training must not be what is interrupted
    patch = interrupted_at(step)
    try:
        with pytest.raises(KeyboardInterrupt):
            teach(task, backbone, config, out=out)
    finally:
        patch.undo()
    assert (out.with_name(f"{out.name}.partial") / "state.safetensors").is_file()
