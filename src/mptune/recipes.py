"""A recipe: the whole comparison in one file, from source tasks and methods to seeds and settings."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from mptune.config import (
    PUBLISHED_SEEDS,
    STARTS,
    AdaptConfig,
    AttemptConfig,
    BackboneConfig,
    Config,
    DeptConfig,
    DistillConfig,
    EvaluateConfig,
    TeachConfig,
    TrainingConfig,
    WeightsConfig,
)
from mptune.errors import ConfigError
from mptune.results import FROM
from mptune.tasks import Task, get_tasks
from mptune.tasks.yaml import read_yaml

UNADAPTED = ("transfer", "from-sources")  # a multitask prompt as it is
WITHOUT_EXAMPLES = ("constant", "zero-shot", "teacher", *UNADAPTED)  # run once for all shots
OF_WEIGHTS = ("fine-tuning", "bitfit", "adapters", "lora", "ia3")
OF_PEFT = ("lora", "ia3")  # need its library
OF_GROUPS = ("multitask-fine-tuning", "mpt-group")  # learn all targets in one run
METHODS = (
    *WITHOUT_EXAMPLES,
    *OF_WEIGHTS,
    "multitask-fine-tuning",
    "prompt-tuning",
    "spot",
    "spot-closest",
    "attempt",
    "dept",
    "mpt",
    "mpt-group",
)
C = TypeVar("C", bound=TrainingConfig)
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class Recipe(Config):
    """What to learn from, what to adapt to, by which methods, how often."""

    name: str = Field(pattern=NAME)
    """Names the run."""
    out: str = Field(min_length=1)
    """Folder of prompts and results, relative to where the command runs."""
    backbone: BackboneConfig = BackboneConfig()
    """The frozen model."""
    data: str | None = None
    """Folder with local rows of hub tasks, relative to the recipe's file."""
    sources: tuple[str, ...] = Field(min_length=2)
    """Source tasks: built-in names or YAML files relative to the recipe's file."""
    targets: tuple[str, ...] = Field(min_length=1)
    """Target tasks, likewise."""
    methods: tuple[str, ...] = Field(("constant", "zero-shot", "prompt-tuning", "transfer", "mpt"), min_length=1)
    """What is compared, in the table's order: built-in methods and ``variants``. ``from-sources`` asks each source
    task's own prompt on each target; ``teacher`` scores the teachers of targets that are source tasks too."""
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Methods with other settings: ``{no-distillation: {of: mpt, distill: {distill_weight: 0}}}``."""
    shots: tuple[Annotated[int, Field(ge=1)] | Literal["all"], ...] = Field((16,), min_length=1)
    """Labelled target examples per class (in all, for free text), or ``all``."""
    seeds: int = Field(3, ge=1, le=len(PUBLISHED_SEEDS))
    """The first so many of the ten published seeds."""
    source_seeds: int = Field(1, ge=1, le=len(PUBLISHED_SEEDS))
    """How many distillations the seeds take turns with. With one, all seeds share its luck. Teachers are shared."""
    budget: dict[str, Any] = Field(default_factory=dict)
    """Fields of every method's training on targets, as ``{steps: 30, batch_size: 8}``. A method's own section overrides
    it. Without a budget each method takes its section's defaults, which differ."""
    per_task: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Fields of the training on one target, as ``{mnli: {epochs: 10}}``, which override sections and budget; groups
    of targets have none."""
    rates: dict[str, tuple[Annotated[float, Field(gt=0)], ...]] = Field(default_factory=dict)
    """Method to learning rates to try, in its section's unit (of mpt, those of the shared prompt). The best on
    validation rows, with the first seed, is taken per task and number of shots."""
    tuning_rows: int = Field(200, ge=1)
    """Validation rows on which learning rates are compared: more than a few-shot user would have."""
    teach: TeachConfig = TeachConfig()
    """Stage 1."""
    distill: DistillConfig = DistillConfig()
    """Stage 2."""
    adapt: AdaptConfig = AdaptConfig()
    """Stage 3: mpt, mpt-group, transfer."""
    prompt_tuning: TeachConfig = TeachConfig()
    """Prompt tuning on the target's own examples, from scratch or (spot, spot-closest) from a teacher."""
    spot_source: str | None = None
    """The teacher from which ``spot`` starts, for every target; the first source task's where absent."""
    fine_tuning: WeightsConfig = WeightsConfig()
    """Fine-tuning of all weights, on one target or (multitask-fine-tuning) on all at once."""
    bitfit: WeightsConfig = WeightsConfig()
    """Biases alone."""
    adapters: WeightsConfig = WeightsConfig()
    """Bottlenecks behind the parts of each layer."""
    lora: WeightsConfig = WeightsConfig()
    """Low-rank updates of attention."""
    ia3: WeightsConfig = WeightsConfig()
    """Rescaled activations."""
    attempt: AttemptConfig = AttemptConfig()
    """Source prompts mixed for each text."""
    dept: DeptConfig = DeptConfig()
    """A shorter prompt and a low-rank update of the embedded text."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """How the test split is scored."""

    @field_validator("shots", mode="before")
    @classmethod
    def _shots_are_counts(cls, shots: Any) -> Any:
        listed = shots if isinstance(shots, list | tuple) else ()
        wrong = [k for k in listed if k != "all" and not (str(k).isdecimal() and int(k))]
        if wrong:
            raise ValueError(f"wants numbers of examples, 1 or more, or all; got {', '.join(map(str, wrong))}")
        return shots

    @field_validator("sources", "targets", "methods", "shots")
    @classmethod
    def _names_differ(cls, names: tuple[Any, ...]) -> tuple[Any, ...]:
        twice = sorted({str(name) for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} stands twice")
        return names

    @model_validator(mode="before")
    @classmethod
    def _spread_the_budget(cls, values: Any) -> Any:
        """Give every method's section the budget's fields that it does not say itself."""
        budget = values.get("budget") or {} if isinstance(values, dict) else {}
        if not isinstance(budget, dict) or not budget:
            return values
        own = {section: values.get(section) or {} for section in TARGET_SECTIONS}
        return {**values, **{s: _over(budget, fields) for s, fields in own.items() if isinstance(fields, dict)}}

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        problems = []
        for name, fields in self.variants.items():
            if name in METHODS:
                problems.append(f"variants: {name} is a method already; choose another name")
            if fields.get("of") not in METHODS:
                problems.append(f"variants.{name}.of wants one of {', '.join(METHODS)}; got {fields.get('of')!r}")
            if fields.get("of") in ("constant", "from-sources"):
                problems.append(f"variants.{name}: {fields['of']} has no settings to vary")
            if not re.fullmatch(NAME, name):
                problems.append(f"variants: a name has letters, digits, _, - and . only; got {name!r}")
            for section in sorted(set(fields) - {"of"} - set(VARIED)):
                problems.append(f"variants.{name}.{section} is none of {', '.join(VARIED)}")
            for section, values in fields.items():
                if section in VARIED and not isinstance(values, dict):
                    problems.append(f"variants.{name}.{section} wants {{field: value}}; got {values!r}")
            if isinstance(fields.get("evaluate"), dict) and "rows" in fields["evaluate"]:
                problems.append(f"variants.{name}.evaluate.rows: all methods answer the same test rows")
        known = (*METHODS, *self.variants)
        for where, names in (("methods", self.methods), ("rates", tuple(self.rates))):
            if unknown := [name for name in names if name not in known]:
                problems.append(f"{where}: {', '.join(unknown)} is none of {', '.join(known)}")
        for method in self.rates:
            base = method if method in METHODS else self.variants.get(method, {}).get("of")
            if base in METHODS and section_of(base) is None:
                problems.append(f"rates.{method}: it does not learn from a target's examples, and has no rate")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def base(self, method: str) -> str:
        """Return the built-in method of which a method is a variant, or itself."""
        if method.startswith(FROM):
            return "from-sources"
        return str(self.variants[method]["of"]) if method in self.variants else method

    def rates_of(self, method: str) -> tuple[float, ...]:
        """Return the learning rates to try for a method; a variant without its own has those of its method."""
        return self.rates.get(method) or self.rates.get(self.base(method)) or ()

    def varied(self, method: str) -> Self:
        """Return the recipe with a variant's settings; itself for a built-in method.

        Raises:
            ConfigError: fields that do not exist, or values that cannot be.
        """
        if method not in self.variants:
            return self
        values = self.model_dump(exclude={"budget", "variants", "methods", "rates"})
        for section, fields in self.variants[method].items():
            if section != "of":
                values[section] = _over(values[section], fields)
        return self.read(values, f"{self.name}: variants.{method}")

    def seeds_of(self, method: str) -> tuple[int, ...]:
        """Return the seeds of a method's runs.

        Without examples there is one, or one for each multitask prompt of which it takes its answers.
        """
        if self.base(method) in UNADAPTED:
            return PUBLISHED_SEEDS[: min(self.seeds, self.source_seeds)]
        return (0,) if self.base(method) in WITHOUT_EXAMPLES else PUBLISHED_SEEDS[: self.seeds]

    def shots_of(self, method: str) -> tuple[int | None, ...]:
        """Return a method's numbers of shots: 0 where it takes no examples, None for all."""
        if self.base(method) in WITHOUT_EXAMPLES:
            return (0,)
        return tuple(None if k == "all" else k for k in self.shots)


def section_of(method: str) -> str | None:
    """Return the recipe's section by which a built-in method learns from a target's examples; None if it does not."""
    if method in WITHOUT_EXAMPLES:
        return None
    return {
        "multitask-fine-tuning": "fine_tuning",
        "spot": "prompt_tuning",
        "spot-closest": "prompt_tuning",
        "mpt": "adapt",
        "mpt-group": "adapt",
    }.get(method, method.replace("-", "_"))


TARGET_SECTIONS = ("adapt", "prompt_tuning", "fine_tuning", "bitfit", "adapters", "lora", "ia3", "attempt", "dept")
VARIED = ("backbone", "teach", "distill", *TARGET_SECTIONS, "evaluate")


@dataclass(frozen=True)
class Loaded:
    """A recipe with the tasks that it names."""

    recipe: Recipe
    sources: tuple[Task, ...]
    targets: tuple[Task, ...]
    data_dir: Path | None

    @classmethod
    def from_file(cls, path: Path, overrides: dict[str, dict[str, Any]] | None = None) -> Self:
        """Return the recipe of a YAML file, with some fields replaced.

        Raises:
            ConfigError: it is no recipe.
            UnknownNameError: a task that does not exist.
        """
        values = read_yaml(path)
        for section, fields in (overrides or {}).items():
            written = values.get(section) or {}
            if isinstance(written, dict):  # what is none is said when the recipe is read
                values[section] = _over(written, fields)
        _refuse_own_shots(values, path)
        recipe = Recipe.read(values, str(path))
        for method in recipe.methods:
            recipe.varied(method)  # what is wrong with a variant is said now

        def located(name: str) -> str:
            return str(path.parent / name) if name.endswith((".yaml", ".yml")) else name

        sources = get_tasks([located(n) for n in recipe.sources])
        targets = get_tasks([located(n) for n in recipe.targets])
        problems = []
        names = [task.name for task in targets]
        if strangers := sorted(set(recipe.per_task) - set(names)):
            problems.append(f"per_task: {', '.join(strangers)} is none of the targets ({', '.join(names)})")
        if recipe.spot_source is not None and recipe.spot_source not in [task.name for task in sources]:
            problems.append(f"spot_source wants the name of a source task; got {recipe.spot_source!r}")
        if problems:
            raise ConfigError(str(path), problems)
        _refuse_bad_trainings(recipe, [task.name for task in sources], targets, path)
        data_dir = path.parent / recipe.data if recipe.data else None
        if data_dir is not None and not data_dir.is_dir():
            raise ConfigError(str(path), [f"data: there is no folder {recipe.data} beside the recipe"])
        return cls(recipe, tuple(sources), tuple(targets), data_dir)


def _refuse_own_shots(values: dict[str, Any], path: Path) -> None:
    """Raise ConfigError for shots and seeds of single trainings: a comparison has those of the recipe for all."""
    parts = [(section, values.get(section)) for section in ("budget", *TARGET_SECTIONS)]
    for name in ("per_task", "variants"):
        each = values.get(name)
        for key, fields in each.items() if isinstance(each, dict) else ():
            parts.append((f"{name}.{key}", fields))
            if name == "variants" and isinstance(fields, dict):
                parts += [(f"{name}.{key}.{section}", fields.get(section)) for section in TARGET_SECTIONS]
    problems = [
        f"{where}.{field} has no effect: the recipe's shots and seeds are for all"
        for where, fields in parts
        for field in ("shots", "seed")
        if isinstance(fields, dict) and field in fields
    ]
    if problems:
        raise ConfigError(str(path), problems)


def _refuse_bad_trainings(recipe: Recipe, sources: Sequence[str], targets: Sequence[Task], path: Path) -> None:
    """Raise ConfigError now where a training on a target could not be configured, or its rates not compared, later."""
    problems = []
    for method in recipe.methods:
        section = section_of(recipe.base(method))
        if section is None:
            continue
        config: TrainingConfig = getattr(recipe.varied(method), section)
        grouped = recipe.base(method) in OF_GROUPS
        trainings = [config] if grouped else [for_target(config, recipe, task) for task in targets]
        starts = dict.fromkeys(training.initialise for training in trainings if isinstance(training, AdaptConfig))
        problems += [
            f"adapt.initialise of {method} wants one of {', '.join((*STARTS, *sources))}; got {start!r}"
            for start in starts
            if start not in (*STARTS, *sources)
        ]
        if len(recipe.rates_of(method)) > 1 and any(training.validation_shots == 0 for training in trainings):
            problems.append(
                f"rates: those of {method} are compared on validation rows, on which validation_shots = 0 trains"
            )
    if problems:
        raise ConfigError(str(path), problems)


def for_target(config: C, recipe: Recipe, task: Task, **few: Any) -> C:
    """Return a method's configuration for one target: with what ``per_task`` says, shots and seed."""
    fields = _over(config.model_dump(), {**recipe.per_task.get(task.name, {}), **few})
    return type(config).read(fields, f"{recipe.name}: per_task.{task.name}")


def _over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return fields with others over them; steps that are named take the place of epochs below."""
    counted = {"epochs": None} if "steps" in own and "epochs" not in own and "epochs" in base else {}
    return {**base, **counted, **own}
