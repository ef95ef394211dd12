"""Baselines that learn weights of the backbone: fine-tuning, BitFit, adapters, LoRA, (IA)³. The door to PEFT's layers.

Each is a function that changes a thawed backbone in place and returns what learns; all other parameters stay frozen.
"""

import copy
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mptune.comparison.baselines.tuning import Tuned, tune
from mptune.comparison.config import WeightsConfig
from mptune.comparison.methods import PEFT
from mptune.comparison.systems import Sources, System
from mptune.comparison.trials import Trial
from mptune.errors import BackboneError, MissingExtraError
from mptune.model.backbone import Backbone
from mptune.model.batch import Batch
from mptune.model.memory import large_blocks_apart
from mptune.tasks.data import TaskRows
from mptune.tasks.task import Task

Change = Callable[[Backbone, WeightsConfig], list[nn.Parameter]]

# The parts of a layer behind which an adapter stands, self-attention and feed-forward, in the families' own words: T5,
# Llama and its kin, GPT-2, BART and Marian. Attention from decoder to encoder has none (Houlsby et al. 2019 had no
# decoder; Karimi Mahabadi et al. 2021 leave it out).
SELF_ATTENTION = ("SelfAttention", "self_attn", "attn")
FEED_FORWARD = ("DenseReluDense", "mlp", "fc2")


def trained(change: Change, trial: Trial, sources: Sources) -> list[System]:
    """A copy of the backbone that has learnt a target, or several."""
    backbone = sources.backbone(trial.contender.settings)
    return tune_weights(change, trial.targets, backbone, trial.config, out=trial.out).systems()


def tune_weights(
    change: Change,
    tasks: Sequence[Task | TaskRows],
    backbone: Backbone,
    config: WeightsConfig,
    *,
    out: Path | None = None,
) -> Tuned:
    """Return a copy of the backbone whose weights, or some of them, have learnt the tasks.

    Args:
        change: a function below.

    Raises:
        MissingExtraError: LoRA and (IA)³ without PEFT.
    """
    copied = thawed(backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # layers of libraries draw from the global generator
        learnt = change(copied, config)
    for parameter in learnt:
        parameter.requires_grad_(True)
    reads, name = BareText(learnt, backbone.width), change.__name__.replace("_", "-")
    with large_blocks_apart():
        return tune(name, reads, [{"params": learnt, "lr": config.lr}], tasks, copied, config, 0, out)


def thawed(backbone: Backbone) -> Backbone:
    """Return a copy of a backbone whose weights may learn; none of them learns yet.

    The copy's weights are float32, since bfloat16 would lose small updates; it computes in the type of the backbone.
    """
    copied = Backbone(copy.deepcopy(backbone.model).float(), backbone.tokenizer, backbone.config)
    copied.packed = None  # its own forward pass has no gradients of weights
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


def fine_tuning(backbone: Backbone, config: WeightsConfig) -> list[nn.Parameter]:
    """Return all weights; Marian's positions are computed once and never learn."""
    sines = [m for m in backbone.model.modules() if "sinusoidal" in type(m).__name__.lower()]
    fixed = {id(p) for module in sines for p in module.parameters()}
    return [p for p in backbone.model.parameters() if id(p) not in fixed]


def bitfit(backbone: Backbone, config: WeightsConfig) -> list[nn.Parameter]:
    """Return all biases; linear layers without one, all of T5's, get one of zeros.

    Norms get none: what follows a norm is linear, and has a bias that says the same. The output layer gets none either.

    Source: Ben Zaken et al. 2022 (arXiv:2106.10199).
    """
    head = backbone.model.get_output_embeddings()
    for module in backbone.model.modules():
        if isinstance(module, nn.Linear) and module is not head and getattr(module, "bias", None) is None:
            module.bias = nn.Parameter(module.weight.new_zeros(module.out_features))
    of_head = getattr(head, "bias", None)
    named = backbone.model.named_parameters()
    biases = [p for name, p in named if name.split(".")[-1] == "bias" and p is not of_head]
    if not biases:
        raise BackboneError(f"{backbone.config.name} has no linear layers, and so no biases for BitFit to learn")
    return biases


class Adapter(nn.Module):
    """A bottleneck that adds to what it is given: ``h + up(gelu(down(h)))``, nothing at its start."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.normal_(self.down.weight, std=0.01)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, h: Tensor) -> Tensor:
        """Return the adapted states. [..., D] -> [..., D]"""
        added: Tensor = self.up(nn.functional.gelu(self.down(h), approximate="tanh"))
        return h + added


def adapters(backbone: Backbone, config: WeightsConfig) -> list[nn.Parameter]:
    """Put an adapter behind every self-attention and every feed-forward part; they learn, and so do the norms.

    Source: Houlsby et al. 2019 (arXiv:1902.00751), section 2.1.
    """
    model = backbone.model
    spots = [m for name, m in model.named_modules() if name.split(".")[-1] in (*SELF_ATTENTION, *FEED_FORWARD)]
    if not spots:
        raise BackboneError(
            f"where adapters stand in a {model.config.model_type} is not known; "
            f"its layers hold none of {', '.join((*SELF_ATTENTION, *FEED_FORWARD))}"
        )
    learnt: list[nn.Parameter] = []
    for spot in spots:
        adapter = Adapter(backbone.width, max(1, backbone.width // config.reduction)).to(backbone.device)
        spot.register_forward_hook(_behind(adapter))
        learnt += adapter.parameters()
    norms = [m for m in model.modules() if "norm" in type(m).__name__.lower()]
    return [*learnt, *(p for norm in norms for p in norm.parameters())]


def _behind(adapter: Adapter) -> Callable[..., Any]:
    """Return a hook that adapts what a part of a layer gives: states, or a tuple that begins with them."""

    def hook(module: nn.Module, inputs: Any, given: Any) -> Any:
        return (adapter(given[0]), *given[1:]) if isinstance(given, tuple) else adapter(given)

    return hook


def lora(backbone: Backbone, config: WeightsConfig) -> list[nn.Parameter]:
    """Put low-rank updates beside the attention's query and value projections, PEFT's choice for the model.

    Source: Hu et al. 2022 (arXiv:2106.09685).
    """
    peft = peft_library()
    return _injected(peft, peft.LoraConfig(r=config.rank, lora_alpha=2 * config.rank, lora_dropout=0.0), backbone)


def ia3(backbone: Backbone, config: WeightsConfig) -> list[nn.Parameter]:
    """Rescale keys, values and the feed-forward part's inner states, PEFT's choice for the model.

    Source: Liu et al. 2022 (arXiv:2205.05638).
    """
    peft = peft_library()
    return _injected(peft, peft.IA3Config(), backbone)


def peft_library() -> Any:
    """Return the library of LoRA and (IA)³.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import peft
    except ImportError:
        raise MissingExtraError(*PEFT[:2]) from None
    return peft


def _injected(peft: Any, config: Any, backbone: Backbone) -> list[nn.Parameter]:
    backbone.model.requires_grad_(False)
    before = {id(p) for p in backbone.model.parameters()}
    try:
        peft.inject_adapter_in_model(config, backbone.model)
    except ValueError:  # which layers to change is known to PEFT for some families only
        kind, family = config.peft_type.value, backbone.model.config.model_type
        raise BackboneError(
            f"PEFT does not say where {kind} stands in a {family}; take adapters, BitFit or another model"
        ) from None
    return [p for p in backbone.model.parameters() if id(p) not in before]
