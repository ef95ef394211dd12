"""Every method of a comparison, one row each: what recipes, runs, plans and reports know of a method stands here.

A new rival is one row and one function. The order is that of a report's legends and of messages. Reading the table
loads no library: functions stand in modules that are imported when they are first called.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from mptune.comparison.config import (
    AdaptersConfig,
    AttemptConfig,
    BitFitConfig,
    DeptConfig,
    Ia3Config,
    InContextConfig,
    LoraConfig,
    ProbeConfig,
    SetFitConfig,
)
from mptune.config import STAGES, AdaptConfig, Config, ExamplesConfig, TeachConfig, WeightsConfig

# A `Trial` and the comparison's `Sources` to a `System` for each target; these stand in modules above this one.
Function = Callable[[Any, Any], Sequence[Any]]

WITHOUT, PROMPTS, WEIGHTS = "No target examples", "Prompts are trained", "Weights are trained"
CLASSIC = "Nothing of the model is trained"
UNADAPTED = "Source prompts, unadapted"

RMS, ADAMW = "embeddings' RMS", "AdamW's"  # units of learning rates
# What needs an extra, its name, and the library that tells whether it is there.
PEFT = ("LoRA or (IA)³", "peft", "peft")
SETFIT = ("SetFit", "setfit", "setfit")


@dataclass(frozen=True)
class RecipeSection:
    """A recipe's section with the settings of a training; several methods may share one.

    The stages' own, ``teach`` and ``adapt``, are described where recipes are.
    """

    name: str
    config: type[ExamplesConfig]
    description: str = ""


@dataclass(frozen=True)
class Method:
    """What is known of one method."""

    function: Function
    family: str
    """Title under which reports group it."""
    description: str
    """What it is, for a report's legend."""
    learns: str
    """What learns, for the documentation."""
    begins_with: Literal["nothing", "backbone", "teachers", "multitask prompt"] = "backbone"
    section: RecipeSection | None = None
    """The settings of what learns; None where nothing does."""
    takes_examples: bool = True
    """Whether it learns from a target's examples; else it runs once for all shots."""
    runs_on: Literal["a target", "all targets", "a source task", "a source task and a target"] = "a target"
    """What one run is of; a run on all targets learns them at once, and one on a source task wants it as target too."""
    rate: str = "lr"
    """Field of the section that a tried learning rate replaces."""
    unit: str = ""
    """Of its rates."""
    trainings: int = 1
    """How many a run makes on its target, one after the other."""
    extra: tuple[str, str, str] | None = None
    """What needs more libraries, the extra that brings them, and one of them."""
    labels_only: bool = False
    """Whether it can only choose among labels, and not write text."""
    wants_unlabelled: bool = False
    """Whether it needs rows of the target that nobody has labelled."""
    rival: bool = False
    """Whether the verdict puts it beside MPT: the other methods that make prompts."""
    ranked: bool = True
    """Whether it can be a table's best."""
    suspect: bool = False
    """Whether MPT below it is negative transfer."""
    simple: bool = False
    """Whether it is what everybody tries first: where it is above MPT, the verdict begins with it."""
    reference: int = 0
    """1: the table in results.md gives every other method's difference from this; 2: where that was not run."""

    @property
    def has_rate(self) -> bool:
        """Whether it learns from a target's examples at a rate that can be tried."""
        return self.takes_examples and self.section is not None and self.rate in self.section.config.model_fields

    @property
    def on_sources(self) -> bool:
        """Whether a run of it is of a source task."""
        return self.runs_on in ("a source task", "a source task and a target")

    @property
    def varies(self) -> bool:
        """Whether any of a recipe's settings changes what it does, so that it may have variants."""
        return self.begins_with != "nothing" and self.runs_on != "a source task and a target"


def _in(module: str, name: str) -> Function:
    """Return a function of the comparison whose module is imported when it is first called."""

    def run(trial: Any, sources: Any) -> Sequence[Any]:
        function: Function = getattr(import_module(f"mptune.comparison.{module}"), name)
        return function(trial, sources)

    return run


def _weights(name: str, module: str = "comparison.baselines.weights") -> Function:
    """Return the training of the weights that a function chooses or adds."""

    def run(trial: Any, sources: Any) -> Sequence[Any]:
        change = getattr(import_module(f"mptune.{module}"), name)
        systems: Sequence[Any] = import_module("mptune.comparison.baselines.weights").trained(change, trial, sources)
        return systems

    return run


TEACH = RecipeSection("teach", TeachConfig)
ADAPT = RecipeSection("adapt", AdaptConfig)
PROMPT_TUNING = RecipeSection(
    "prompt_tuning",
    TeachConfig,
    "Prompt tuning on the target's own examples, from scratch or (spot, spot-closest) from a teacher.",
)
FINE_TUNING = RecipeSection(
    "fine_tuning",
    WeightsConfig,
    "Fine-tuning of all weights, on one target or (multitask-fine-tuning) on all at once.",
)

METHODS: dict[str, Method] = {
    "mpt": Method(
        _in("multitask", "mpt"), PROMPTS, "multitask prompt tuning: the distilled multitask prompt, adapted",
        "shared prompt and task vectors, from the multitask prompt", "multitask prompt", ADAPT,
        rate="shared_lr", unit=f"{RMS}; vectors {ADAMW}", reference=2,
    ),
    "mpt-group": Method(
        _in("multitask", "mpt"), PROMPTS, "the same, one shared prompt for all target tasks together",
        "one shared prompt for all targets, task vectors for each", "multitask prompt", ADAPT,
        runs_on="all targets", rate="shared_lr", unit=f"{RMS}; vectors {ADAMW}",
    ),
    "prompt-tuning": Method(
        _in("baselines.prompt_tuning", "prompt_tuning"), PROMPTS, "a prompt from scratch",
        "a prompt, from a sample of the vocabulary", "backbone", PROMPT_TUNING,
        unit=RMS, rival=True, suspect=True, reference=1,
    ),
    "spot": Method(
        _in("baselines.spot", "spot"), PROMPTS, "starts at one source task's prompt, the same for all targets",
        "a prompt, from the teacher that `spot_source` names", "teachers", PROMPT_TUNING, unit=RMS, rival=True,
    ),
    "spot-closest": Method(
        _in("baselines.spot", "spot_closest"), PROMPTS, "starts at the most similar source task's prompt",
        "a prompt, from the teacher most like the target's own tuned prompt", "teachers", PROMPT_TUNING,
        unit=RMS, trainings=2, rival=True,
    ),
    "attempt": Method(
        _in("baselines.attempt", "attempt"), PROMPTS, "attention over the source tasks' prompts and one of its own",
        "a prompt, and attention over it and the teachers for each text", "teachers",
        RecipeSection("attempt", AttemptConfig, "Source prompts mixed for each text."),
        unit=f"{RMS}; attention {ADAMW}", rival=True,
    ),
    "dept": Method(
        _in("baselines.dept", "dept"), PROMPTS, "a shorter prompt, and a low-rank change of the input embeddings",
        "a shorter prompt, and a low-rank update of the embedded text", "backbone",
        RecipeSection("dept", DeptConfig, "A shorter prompt and a low-rank update of the embedded text."),
        unit=f"{RMS}; update {ADAMW}", rival=True,
    ),
    "constant": Method(
        _in("baselines.references", "constant"), WITHOUT, "always says the commonest training label",
        "nothing: the commonest training label", "nothing", takes_examples=False, ranked=False,
    ),
    "zero-shot": Method(
        _in("baselines.references", "zero_shot"), WITHOUT, "the frozen backbone alone", "nothing: the bare backbone",
        takes_examples=False,
    ),
    "transfer": Method(
        _in("multitask", "transfer"), WITHOUT, "the multitask prompt, unadapted",
        "nothing on the target: the multitask prompt with the mean of the source tasks' vectors",
        "multitask prompt", takes_examples=False, rival=True, suspect=True,
    ),
    "teacher": Method(
        _in("baselines.references", "teacher"), WITHOUT, "the task's teacher prompt, which source training imitates",
        "a prompt, on all rows of a target that is a source task too", "teachers", TEACH,
        takes_examples=False, runs_on="a source task", unit=RMS, ranked=False, suspect=True,
    ),
    "from-sources": Method(
        _in("multitask", "from_source"), UNADAPTED, "the multitask prompt, as a source task uses it",
        "nothing on the target: the multitask prompt as each source task uses it, in turn",
        "multitask prompt", takes_examples=False, runs_on="a source task and a target",
    ),
    "tf-idf": Method(
        _in("baselines.classic", "tf_idf"), CLASSIC, "logistic regression on the words of the text",
        "logistic regression on counts of words and pairs of words (scikit-learn)", "backbone",
        RecipeSection("tf_idf", ProbeConfig, "Logistic regression on word counts."),
        rate="strength", unit="C", labels_only=True, simple=True,
    ),
    "linear-probe": Method(
        _in("baselines.classic", "linear_probe"), CLASSIC, "logistic regression on the frozen backbone's features",
        "logistic regression on the encoder's mean last state, or a decoder's last token (scikit-learn)", "backbone",
        RecipeSection("linear_probe", ProbeConfig, "Logistic regression on features of the frozen backbone."),
        rate="strength", unit="C", labels_only=True, simple=True,
    ),
    "setfit": Method(
        _in("baselines.setfit", "setfit"), CLASSIC, "a small sentence encoder, tuned on pairs of rows",
        "a sentence encoder, on pairs of rows; then logistic regression (SetFit)", "backbone",
        RecipeSection("setfit", SetFitConfig, "A sentence encoder and logistic regression."),
        unit=ADAMW, extra=SETFIT, labels_only=True,
    ),
    "in-context": Method(
        _in("baselines.in_context", "in_context"), CLASSIC, "labelled rows before the text",
        "nothing: labelled rows stand before the text, as many as fit", "backbone",
        RecipeSection("in_context", InContextConfig, "Labelled rows before the text."),
    ),
    "fine-tuning": Method(
        _weights("fine_tuning", "stages.weights"), WEIGHTS, "all weights", "all weights", "backbone", FINE_TUNING,
        unit=ADAMW,
    ),
    "taught-fine-tuning": Method(
        _in("baselines.weights", "taught_fine_tuning"), WEIGHTS, "all weights, taught on unlabelled rows too",
        "all weights, on labels and on what MPT's teachers say of unlabelled rows", "multitask prompt", FINE_TUNING,
        unit=ADAMW, labels_only=True, wants_unlabelled=True,
    ),
    "bitfit": Method(
        _weights("bitfit"), WEIGHTS, "biases only", "biases", "backbone",
        RecipeSection("bitfit", BitFitConfig, "Biases alone."), unit=ADAMW,
    ),
    "adapters": Method(
        _weights("adapters"), WEIGHTS, "small layers in between", "bottlenecks in every layer, and norms", "backbone",
        RecipeSection("adapters", AdaptersConfig, "Bottlenecks behind the parts of each layer."), unit=ADAMW,
    ),
    "lora": Method(
        _weights("lora"), WEIGHTS, "low-rank changes of weights", "low-rank updates of attention (PEFT)", "backbone",
        RecipeSection("lora", LoraConfig, "Low-rank updates of attention."), unit=ADAMW, extra=PEFT,
    ),
    "ia3": Method(
        _weights("ia3"), WEIGHTS, "factors on activations", "scales of activations (PEFT)", "backbone",
        RecipeSection("ia3", Ia3Config, "Rescaled activations."), unit=ADAMW, extra=PEFT,
    ),
    "multitask-fine-tuning": Method(
        _weights("fine_tuning", "stages.weights"), WEIGHTS, "all weights, for all target tasks together",
        "all weights, on all targets at once", "backbone", FINE_TUNING, runs_on="all targets", unit=ADAMW,
    ),
}  # fmt: skip


def target_sections() -> dict[str, RecipeSection]:
    """Return the sections by which methods learn from a target's examples, by name."""
    return {m.section.name: m.section for m in METHODS.values() if m.section and m.takes_examples}


def sections() -> dict[str, type[Config]]:
    """Return all sections that ``--set section.field=value`` may name and variants may change, by name."""
    return {**STAGES, **{name: section.config for name, section in target_sections().items()}}
