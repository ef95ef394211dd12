"""Every hyper-parameter of the method: one frozen model per stage, each field with its unit, its reason and its range.

Configurations are values. They never build anything, and unknown or impossible fields are all reported at once.
Learning rates of prompts are in units of the root mean square of the backbone's input embeddings, see
docs/decisions/0004-learning-rates.md.
"""

import difflib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from mptune.errors import ConfigError, UnknownNameError

MOST_STEPS = 10**9
MOST_TOKENS = 100_000  # of a prompt, a text or an answer; numbers beyond it are slips that would fill the memory
MOST_RANK = 10_000
MOST_ROWS = 10**6  # of a batch
LARGEST_SCORE = 1e9  # of any metric; larger ones would not fit where they are shown, nor their sums be finite
EMBEDDED = "embedded"  # the name of the backbone that an extra brings
EMBEDDED_IS = "a FLAN-T5-small derivative"
STARTS = ("mean-vectors", "mean-matrices", "closest", "shared")  # of a target's vectors; or a source task's name


class Config(BaseModel):
    """A frozen set of named values; what is wrong with them is said all at once."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        """Make it of values by name.

        Raises:
            ConfigError: as `read`.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(type(self).__name__, _problems(type(self), error)) from error

    # What is read within another model is validated by pydantic alone, which then knows where each problem stands.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str) -> Self:
        """Return the configuration that ``values`` describes.

        Args:
            where: what the values come from, for the message.

        Raises:
            ConfigError: listing every unknown field (with the nearest known one) and every wrong value.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(where, _problems(cls, error)) from None


class BackboneConfig(Config):
    """Which frozen model, in which numbers, where."""

    name: str = EMBEDDED
    """``embedded``, a Hugging Face id, or a folder with ``config.json``."""
    revision: str | None = None
    """Commit or tag on the hub; the newest where none is named."""
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    """Type of the frozen weights; prompts and their optimizer are always float32. ``auto`` takes bfloat16 where the
    processor multiplies it natively."""
    bits: Literal[4, 8] | None = None
    """Weights in 4 bits (NF4) or 8, for less memory and not for speed; it computes in ``dtype``. Takes the extra
    ``quantized``."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``, ``mps``; ``auto`` takes an accelerator where there is one."""

    @field_validator("bits", mode="before")
    @classmethod
    def _bits_may_be_typed(cls, bits: Any) -> Any:
        return int(bits) if isinstance(bits, str) and bits.isascii() and bits.isdigit() else bits


class ExamplesConfig(Config):
    """Which examples of a task something learns from, and how they are read."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Decides initialisation, order and the rows of a few-shot subset."""
    shots: int | None = Field(None, ge=1)
    """Training examples per class (in all, for free text), drawn by the seed; all where absent."""
    validation_shots: int | None = Field(None, ge=0)
    """Validation examples per class, beside the ``shots``. Where absent, few-shot trainings have none and keep the last
    state, and others have the validation rows; 0: none for either. Of eight labelled examples per class, all to train
    on did better than four and four (docs/LOG.md, 2026-11-20: the rest of the open choices at 4 shots)."""
    validation_rows: int = Field(200, ge=1)
    """At most so many validation rows per task, the first of a seeded shuffle."""
    max_input_tokens: int = Field(256, ge=1, le=MOST_TOKENS)
    """Longer texts are cut at the end of their longest fields, where the task says no length of its own. Paper: 256."""
    max_target_tokens: int = Field(128, ge=1, le=MOST_TOKENS)
    """Longer targets are cut, and generation stops there. Paper: 128."""

    @property
    def validates(self) -> bool:
        """Whether validation rows choose which state of a training is kept; else all rows train, to the last step."""
        return bool(self.validation_shots) or (self.validation_shots is None and self.shots is None)


class TrainingConfig(ExamplesConfig):
    """What every stage that trains has in common."""

    steps: int = Field(300, ge=0, le=MOST_STEPS)
    """Optimizer updates."""
    epochs: float | None = Field(None, gt=0, le=1e6)
    """Passes over the training rows, in place of ``steps``."""
    batch_size: int = Field(16, ge=1, le=MOST_ROWS)
    """Examples per update, over all devices. The paper has 32 on GPUs."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps in which the learning rate rises from zero; then it falls linearly to zero. Spec: 10 %."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's. The paper has 1e-5, which times its learning rate changes nothing."""
    label_weight: float = Field(1.0, ge=0)
    """Of the cross entropy among a task's own label words, beside that over the whole vocabulary. Paper: 0."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient. Paper: 1.0."""
    dropout: bool = False
    """Keep the backbone's dropout on while a prompt trains; see docs/decisions/0002-dropout-off.md."""
    validate_every: int = Field(50, ge=1)
    """Steps between two scores on the validation rows; the best prompt of a run is kept."""
    save_every: int = Field(50, ge=1)
    """Steps between two saved states, from which a killed run goes on."""
    scoring: Literal["task", "labels", "generation"] = "task"
    """How a classification task is validated: as the task says, ranking its label words, or by free generation."""

    def steps_of(self, rows: int) -> int:
        """Return how many steps a training on so many rows takes."""
        return self.steps if self.epochs is None else math.ceil(self.epochs * rows / self.batch_size)


class TeachConfig(TrainingConfig):
    """Stage 1, and plain prompt tuning: one soft prompt for one task."""

    prompt_length: int = Field(100, ge=0, le=MOST_TOKENS)
    """L, soft tokens. Paper: 100."""
    lr: float = Field(0.3, gt=0)
    """Learning rate of the prompt, in units of the embeddings' RMS. Measured for runs of a few hundred steps,
    docs/LOG.md, 2026-11-20: learning rate of prompts; the paper's 0.3 on T5 is about 0.02 units, for a hundred
    thousand."""


class DistillConfig(TrainingConfig):
    """Stage 2, source training: teachers into one multitask prompt."""

    steps: int = Field(600, ge=0, le=MOST_STEPS)
    """Optimizer updates over the mixture. The paper takes 5 epochs of 1.1 M examples."""
    prompt_length: int | None = Field(None, ge=1, le=MOST_TOKENS)
    """L of the student; the teachers' where absent."""
    rank: int = Field(1, ge=1, le=MOST_RANK)
    """R of each task matrix. Paper: 1."""
    shared_lr: float = Field(0.3, gt=0)
    """Learning rate of the shared prompt, in units of the embeddings' RMS."""
    task_lr: float = Field(0.1, gt=0)
    """Learning rate of u and v, which are about one."""
    distill_weight: float = Field(0.9, ge=0)
    """λ: how much the teachers count beside the labels; 0 learns from labels alone. Paper: 0.9."""
    logit_weight: float = Field(1.0, ge=0)
    """Of the logits in L_PLM + λ (logit_weight L_logits + hidden_weight L_hidden). Paper: 1."""
    hidden_weight: float = Field(1.0, ge=0)
    """Of the hidden states in the same sum. Paper: 1."""
    temperature: float = Field(1.0, gt=0)
    """T of both softmaxes in L_logits. Not published; docs/decisions/0005."""
    hidden_layers: tuple[int, ...] = (-1,)
    """Layers compared by L_hidden, of the encoder and of the decoder; -1 is the last."""
    teacher_cache: float = Field(4.0, ge=0, le=1e9)
    """GiB of disk for the teachers' outputs while the run lasts; the embedded backbone needs about 0.3 MB a row. Where
    that is too little, every step asks the teachers again; 0 always does."""
    decomposition: bool = True
    """Whether tasks have vectors of their own; without, one prompt serves all (ablation)."""
    initialise: Literal["vocabulary", "teachers"] = "vocabulary"
    """Where P* starts: at a vocabulary sample (paper), or at the mean of the teachers."""
    noise: float = Field(0.02, ge=0)
    """Standard deviation of u and v around their start at one."""
    sampling: Literal["stochastic", "all"] = "stochastic"
    """Tasks per batch: K drawn uniformly from 2..κ (paper), or always all."""
    mixing: Literal["proportional", "equal", "logarithmic"] = "proportional"
    """How often a task is drawn: by its capped number of examples (paper), alike, or by its logarithm."""
    mixing_cap: int = Field(2**18, ge=1)
    """Largest number of examples that counts in proportional mixing. Raffel et al. 2020: 262,144."""

    @field_validator("hidden_layers", mode="before")
    @classmethod
    def _one_layer_may_stand_alone(cls, layers: Any) -> Any:
        return (layers,) if isinstance(layers, str | int) else layers


class AdaptConfig(TrainingConfig):
    """Stage 3, target adaptation: a multitask prompt to a new task, or to a group of tasks."""

    steps: int = Field(100, ge=0, le=MOST_STEPS)
    """Optimizer updates; fewer where ``most_epochs`` says so. 0 keeps the transferred prompt as it is."""
    most_epochs: float | None = Field(25, gt=0, le=1e6)
    """Passes over the training rows, where ``steps`` would be more: eight rows are learnt by heart in 25 steps, and
    forgotten how to be told in 100 (docs/LOG.md, 2026-11-28: steps by rows). No limit where ``steps`` or ``epochs``
    are named."""
    batch_size: int = Field(8, ge=1, le=MOST_ROWS)
    """Examples per update, over all devices."""
    validate_every: int = Field(20, ge=1)
    """Steps between two scores on the validation rows; the start has one too, so that adapting never ends below it."""
    initialise: str = "mean-vectors"
    """u and v of the target: ``mean-vectors`` (paper), ``mean-matrices``, ``closest``, ``shared`` (ones), or the name
    of a source task."""
    train: Literal["all", "task-vectors", "shared"] = "all"
    """What learns: P*, u and v (paper); u and v, 868 numbers on T5-base; or P* alone."""
    shared_lr: float = Field(0.2, gt=0)
    """Learning rate of the shared prompt, in units of the embeddings' RMS."""
    task_lr: float = Field(0.05, gt=0)
    """Learning rate of u and v, which are about one."""
    unlabelled_rows: int = Field(400, ge=0)
    """At most so many rows of the task's ``dataset.unlabelled``, drawn by the seed, that teachers answer; 0 learns from
    labelled rows alone. The answers cost as much as so many predictions."""
    unlabelled_steps: int = Field(150, ge=0, le=MOST_STEPS)
    """Optimizer updates of the prompt that learns from the teachers' answers, each on as many unlabelled rows as
    labelled ones; the teachers take ``steps``."""
    sharpening: float = Field(2.0, gt=0)
    """Power to which the teachers' mean probabilities are taken: above 1, the likeliest label counts for more."""

    @model_validator(mode="before")
    @classmethod
    def _steps_that_are_named_are_taken(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "most_epochs" not in values and {"steps", "epochs"} & values.keys():
            return {**values, "most_epochs": None}
        return values

    def steps_of(self, rows: int) -> int:
        """Return how many steps a training on so many rows takes."""
        steps = super().steps_of(rows)
        return steps if self.most_epochs is None else min(steps, math.ceil(self.most_epochs * rows / self.batch_size))


class BaselineConfig(TrainingConfig):
    """What has a budget of the size of an adaptation, and no multitask prompt to begin with."""

    steps: int = Field(100, ge=0, le=MOST_STEPS)
    """Optimizer updates."""
    batch_size: int = Field(8, ge=1, le=MOST_ROWS)
    """Examples per update, over all devices."""
    validate_every: int = Field(20, ge=1)
    """Steps between two scores on the validation rows; the best state of a run is kept."""


class WeightsConfig(BaselineConfig):
    """What changes the backbone's weights, or adds some to them."""

    lr: float = Field(3e-4, gt=0)
    """Learning rate of AdamW. The paper's baselines: 3e-4, at which some stand still when steps are few: the methods of
    a comparison have rates at which they learn from few labels (docs/LOG.md, 2026-11-27: rates for few labels)."""
    rank: int = Field(8, ge=1, le=MOST_RANK)
    """Of low-rank updates."""
    reduction: int = Field(32, ge=1, le=MOST_RANK)
    """D over the bottleneck's width, of adapters. The paper's: 32, 24 wide on T5-base."""


class EvaluateConfig(Config):
    """How a prompt is scored."""

    batch_size: int = Field(32, ge=1, le=MOST_ROWS)
    """Examples per forward pass."""
    rows: int | None = Field(None, ge=1)
    """At most so many rows, the first of a seeded shuffle; all where absent."""
    scoring: Literal["task", "labels", "generation"] = "task"
    """As the task says, ranking its label words, or free generation, whose answer must be the label word itself."""
    max_input_tokens: int = Field(256, ge=1, le=MOST_TOKENS)
    """Longer texts are cut at the end of their longest fields, where the task says no length of its own."""
    max_target_tokens: int = Field(128, ge=1, le=MOST_TOKENS)
    """Generation stops there."""
    num_beams: int = Field(1, ge=1, le=MOST_RANK)
    """1 is greedy search, as in the paper."""


PUBLISHED_SEEDS = tuple(range(10))  # of few-shot runs; an experiment takes the first so many, in order

STAGES: dict[str, type[Config]] = {
    "backbone": BackboneConfig,
    "teach": TeachConfig,
    "distill": DistillConfig,
    "adapt": AdaptConfig,
    "evaluate": EvaluateConfig,
}


def parse_overrides(settings: list[str], known: Collection[str] = STAGES) -> dict[str, dict[str, Any]]:
    """Return ``["distill.temperature=2"]`` as ``{"distill": {"temperature": "2"}}``.

    Args:
        known: the sections that there are.

    Raises:
        ConfigError: a setting without ``stage.field=value``.
        UnknownNameError: a stage that does not exist.
    """
    values: dict[str, dict[str, Any]] = {}
    for setting in settings:
        path, equals, value = setting.partition("=")
        stage, dot, field = path.strip().partition(".")
        if not equals or not dot or not field:
            raise ConfigError("--set", [f"wants stage.field=value, as distill.temperature=2; got {setting!r}"])
        if stage not in known:
            raise UnknownNameError("stage", stage, known)
        values.setdefault(stage, {})[field] = _parse(value)
    return values


def _parse(value: str) -> Any:
    """Return a command-line value: a tuple where commas stand, None for ``none``, else the text itself."""
    if value.lower() == "none":
        return None
    if "," in value:
        return tuple(part for part in value.split(",") if part)
    return value


def number(text: str, kind: type[int] | type[float], **limits: float) -> Any:
    """Return the number that somebody typed for an option, by the rules and in the words of a field.

    Args:
        limits: as a field's: ``ge``, ``gt``, ``le``, ``lt``.

    Raises:
        ValueError: what is wanted, and what came.
    """
    rules: dict[str, Any] = {**limits, **({"allow_inf_nan": False} if kind is float else {})}
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(Annotated[kind, Field(**rules)])  # type: ignore[arg-type]
        return adapter.validate_python(text)
    except ValidationError as error:
        raise ValueError(_wanted_and_got(dict(error.errors()[0]))) from None


def _problems(cls: type[BaseModel], error: ValidationError) -> list[str]:
    """Return pydantic's errors in our words."""
    return [_problem(cls, dict(each)) for each in error.errors()]


def _problem(cls: type[BaseModel], error: dict[str, Any]) -> str:
    """Return one pydantic error in our words."""
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        meant = _meant(str(error["loc"][-1]), _known_fields(cls, error["loc"]))
        return f"{path} is not a field." + (f" Did you mean {meant!r}?" if meant else "")
    if error["type"] == "missing":
        return f"{path} is missing"
    return ": ".join(filter(None, (path, _wanted_and_got(error))))


# What pydantic's kinds of errors want, in our words; limits stand in an error's context.
_WANTS = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list, as [a, b]"),
    **dict.fromkeys(("model_type", "dict_type"), "{field: value}"),
    "string_type": "text",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "a number below {lt:,.0f}",
    "less_than_equal": "{le:,.15g} or less",
}


def _wanted_and_got(error: Mapping[str, Any]) -> str:
    """Return what one pydantic error wanted, and what came."""
    kind, given, message = str(error["type"]), error["input"], str(error["msg"])
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind not in _WANTS:
        wanted = message.removeprefix("Input should be ")
        return f"{'wants ' if wanted != message else ''}{wanted[0].lower()}{wanted[1:]}; got {given!r}"
    if kind.startswith(("greater", "less")):
        return f"wants {_WANTS[kind].format(**error['ctx'])}; got {given}"
    if kind.startswith(("int", "float")) and isinstance(given, tuple):
        given = ",".join(map(str, given))  # which a comma of the command line made
    comma = re.fullmatch(r"(-?\d*),(\d+)", given) if kind.startswith("float") and isinstance(given, str) else None
    return f"wants {_WANTS[kind]}; got {given!r}" + (f" (write {comma[1]}.{comma[2]})" if comma else "")


def _meant(name: str, known: Sequence[str]) -> str | None:
    """Return the field that is meant by a name that is none: one nearly like it, or of which it is the end, as lr."""
    close = difflib.get_close_matches(name, known, n=1)
    return next(iter([*close, *(field for field in known if field.endswith(f"_{name}"))]), None)


def _known_fields(cls: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Return the field names at the level where an unknown one was found."""
    model: Any = cls
    for part in location[:-1]:
        field = model.model_fields.get(part) if isinstance(part, str) else None
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()  # of `Dataset | None`, Dataset
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return list(model.model_fields)
