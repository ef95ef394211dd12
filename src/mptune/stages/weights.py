"""A copy of the backbone that learns: the loop of `stages.tuning` on weights, all of them or those that are chosen."""

import copy
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mptune.config import WeightsConfig
from mptune.errors import UsageError
from mptune.model.backbone import Backbone
from mptune.model.batch import Batch
from mptune.model.memory import large_blocks_apart
from mptune.stages.pseudo_labels import PseudoLabels
from mptune.stages.tuning import Tuned, tune
from mptune.tasks.data import TaskRows
from mptune.tasks.task import Task

# Changes a thawed backbone in place and returns what learns; all other parameters stay frozen.
Change = Callable[[Backbone, WeightsConfig], list[nn.Parameter]]


def tune_weights(
    change: Change,
    tasks: Sequence[Task | TaskRows],
    backbone: Backbone,
    config: WeightsConfig,
    *,
    out: Path | None = None,
    taught: PseudoLabels | None = None,
) -> Tuned:
    """Return a copy of the backbone whose weights, or some of them, have learnt the tasks.

    Args:
        change: `fine_tuning`, or another.
        taught: rows without labels that it learns from too.

    Raises:
        UsageError: the backbone's weights are in few bits.
        MissingExtraError: of a ``change`` that needs a library which is not installed.
    """
    copied = thawed(backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # layers of libraries draw from the global generator
        learnt = change(copied, config)
    for parameter in learnt:
        parameter.requires_grad_(True)
    reads, name = BareText(learnt, backbone.width), change.__name__.replace("_", "-")
    with large_blocks_apart():
        return tune(name, reads, [{"params": learnt, "lr": config.lr}], tasks, copied, config, 0, out, taught)


def fine_tuning(backbone: Backbone, config: WeightsConfig) -> list[nn.Parameter]:
    """Return all weights; Marian's positions are computed once and never learn."""
    sines = [m for m in backbone.model.modules() if "sinusoidal" in type(m).__name__.lower()]
    fixed = {id(p) for module in sines for p in module.parameters()}
    return [p for p in backbone.model.parameters() if id(p) not in fixed]


def thawed(backbone: Backbone) -> Backbone:
    """Return a copy of a backbone whose weights may learn; none of them learns yet.

    The copy's weights are float32, since bfloat16 would lose small updates; it computes in the type of the backbone.

    Raises:
        UsageError: its weights are in few bits, which no update fits into.
    """
    if backbone.config.bits:
        raise UsageError(
            f"the weights of {backbone.config.name} are in {backbone.config.bits} bits and cannot learn; prompts can. "
            "Leave away backbone.bits for a method that trains weights."
        )
    copied = Backbone(copy.deepcopy(backbone.model).float(), backbone.tokenizer, backbone.config)
    copied.packed = copied.graphs = None  # these have no gradients of weights
    copied.fingerprint = backbone.fingerprint
    if backbone.dtype != torch.float32:
        kind: Any = type(copied.model)
        copied.model.__class__ = _computing_in(backbone.dtype, backbone.device.type, kind)
    return copied


@cache
def _computing_in(dtype: torch.dtype, device: str, model: type[nn.Module]) -> type[nn.Module]:
    """Return a kind of model that computes in a type. A wrapper in the model itself would keep that model alive."""
    return type(model.__name__, (model,), {"forward": torch.autocast(device, dtype)(model.forward)})


class BareText(nn.Module):
    """Reads a batch without a prompt, with weights that learn."""

    def __init__(self, learnt: Sequence[nn.Parameter], width: int) -> None:
        super().__init__()
        self.learnt = nn.ParameterList(learnt)
        self.width = width

    def forward(self, batch: Batch) -> tuple[Tensor, Batch]:
        """Return a prompt of no soft tokens [1, 0, D], and the batch."""
        prompts = torch.zeros(1, 0, self.width, device=batch.mask.device)
        if torch.distributed.is_initialized() and torch.is_grad_enabled():
            # Several processes average the gradients of what this module's output depends on, and of nothing else.
            prompts = prompts + 0 * sum(parameter.sum() for parameter in self.learnt)
        return prompts, batch.of_one_prompt()
