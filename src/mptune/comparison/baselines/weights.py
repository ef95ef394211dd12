"""Baselines that learn parts of the backbone: BitFit, adapters, LoRA, (IA)³. The door to PEFT's layers.

Each is a function that changes a thawed backbone in place and returns what learns, as `fine_tuning` of the stages is.
"""

import logging
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from mptune.comparison.methods import PEFT
from mptune.comparison.systems import Sources, System, systems_of
from mptune.comparison.trials import Trial
from mptune.config import WeightsConfig
from mptune.errors import BackboneError, MissingExtraError
from mptune.model.backbone import Backbone
from mptune.stages.ensemble import ensemble_labels, unlabelled_of
from mptune.stages.weights import Change, fine_tuning, tune_weights

# The parts of a layer behind which an adapter stands, self-attention and feed-forward, in the families' own words: T5,
# Llama and its kin, GPT-2, BART and Marian. Attention from decoder to encoder has none (Houlsby et al. 2019 had no
# decoder; Karimi Mahabadi et al. 2021 leave it out).
SELF_ATTENTION = ("SelfAttention", "self_attn", "attn")
FEED_FORWARD = ("DenseReluDense", "mlp", "fc2")


def trained(change: Change, trial: Trial, sources: Sources) -> list[System]:
    """A copy of the backbone that has learnt a target, or several."""
    backbone = sources.backbone(trial.contender.settings)
    return systems_of(tune_weights(change, trial.targets, backbone, trial.config, out=trial.out))


def taught_fine_tuning(trial: Trial, sources: Sources) -> list[System]:
    """A copy of the backbone that learns from labels, and from what the teachers of MPT say of unlabelled rows."""
    settings, (rows,) = trial.contender.settings, trial.targets
    backbone, adapting = sources.backbone(settings), settings.adapt
    adapting = adapting.model_copy(update={"shots": trial.shots, "seed": trial.seed})
    source, unlabelled = sources.multitask(settings, trial.seed), unlabelled_of(rows, adapting)
    _, taught = ensemble_labels(source, rows, unlabelled, backbone, adapting)
    config = trial.config.model_copy(update={"steps": adapting.unlabelled_steps})
    tuned = tune_weights(fine_tuning, [rows], backbone, config, out=trial.out, taught=taught)
    return systems_of(tuned, before=sources.cards(settings, source))


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
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # PEFT imports it, and it names kernels that it lacks
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
