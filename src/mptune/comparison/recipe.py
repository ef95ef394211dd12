"""A recipe: the whole comparison in one file, from source tasks and methods to seeds and settings."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, create_model, field_validator, model_validator

from mptune.comparison.methods import METHODS, Method, RecipeSection, sections, target_sections
from mptune.comparison.results import FROM
from mptune.config import (
    PUBLISHED_SEEDS,
    AdaptConfig,
    BackboneConfig,
    Config,
    DistillConfig,
    EvaluateConfig,
    ExamplesConfig,
    TeachConfig,
    TrainingConfig,
)
from mptune.tasks.task import Switch

C = TypeVar("C", bound=ExamplesConfig)
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class Recipe(Config):
    """What to learn from, what to adapt to, by which methods, how often."""

    # A section for each training that the table of methods has besides is added by `recipe_model`.

    name: str = Field(pattern=NAME)
    """Names the run."""
    out: str = Field(min_length=1)
    """Folder of prompts and results, relative to where the command runs."""
    backbone: BackboneConfig = BackboneConfig()
    """The frozen model."""
    data: str | None = None
    """Folder with local rows of hub tasks, relative to the recipe's file."""
    sources: tuple[str, ...] = ()
    """Source tasks, two or more: built-in names or YAML files relative to the recipe's file."""
    multitask: tuple[str, ...] = ()
    """Multitask prompts that are there, in place of a training on source tasks: one that comes with the package
    (``general``), or folders relative to the recipe's file. The seeds take turns with them."""
    targets: tuple[str, ...] = Field(min_length=1)
    """Target tasks, likewise."""
    chat: Switch = None
    """Where prompts stand in a chat model's template, for every task that does not say so itself."""
    seen: tuple[str, ...] = ()
    """Those targets, by name, on whose data the backbone was trained before anybody's prompt: tables mark them, and
    have a second mean without them."""
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
    spot_source: str | None = None
    """The teacher from which ``spot`` starts, for every target; the first source task's where absent."""
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

    @field_validator("multitask", mode="before")
    @classmethod
    def _one_may_stand_alone(cls, named: Any) -> Any:
        return [named] if isinstance(named, str) else named

    @field_validator("sources", "multitask", "targets", "seen", "methods", "shots")
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
        written = {section: values.get(section) or {} for section in target_sections()}
        spread = {
            s: over(known_to(target_sections()[s].config, budget), fields)
            for s, fields in written.items()
            if isinstance(fields, dict)
        }
        return {**values, **spread}

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        problems = [problem for name, fields in self.variants.items() for problem in _problems_of(name, fields)]
        known = (*METHODS, *self.variants)
        for where, names in (("methods", self.methods), ("rates", tuple(self.rates))):
            if unknown := [name for name in names if name not in known]:
                problems.append(f"{where}: {', '.join(unknown)} is none of {', '.join(known)}")
        for name in self.rates:
            base = name if name in METHODS else self.variants.get(name, {}).get("of")
            if isinstance(base, str) and base in METHODS and not METHODS[base].has_rate:
                problems.append(f"rates.{name}: it does not learn from a target's examples, and has no rate")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @model_validator(mode="after")
    def _begins_somewhere(self) -> Self:
        """Every method has what it begins with, and nothing stands there twice."""
        needy = [name for name in self.methods if self.method(name).begins_with in ("teachers", "multitask prompt")]
        on_sources = [n for n in needy if self.method(n).begins_with == "teachers" or self.method(n).on_sources]
        problems = []
        if len(self.sources) == 1:
            problems.append(f"sources wants two or more tasks; got {self.sources[0]}")
        if self.sources and self.multitask:
            problems.append("sources and multitask: a comparison begins with one of them; leave the other away")
        if needy and not self.sources and not self.multitask:
            problems.append(
                f"{', '.join(needy)} begins with source tasks or with a multitask prompt; name them under sources, or "
                "one under multitask, as multitask: general"
            )
        if self.multitask and not self.sources and on_sources:
            problems.append(
                f"{', '.join(on_sources)} wants source tasks, and multitask has none; name some under sources"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def base(self, name: str) -> str:
        """Return the built-in method of which a method is a variant, or itself."""
        if name.startswith(FROM):
            return "from-sources"
        return str(self.variants[name]["of"]) if name in self.variants else name

    def method(self, name: str) -> Method:
        """Return what is known of a method, or of that of which it is a variant."""
        return METHODS[self.base(name)]

    def section(self, name: str) -> ExamplesConfig:
        """Return the settings of a training."""
        config: ExamplesConfig = getattr(self, name)
        return config

    def rates_of(self, name: str) -> tuple[float, ...]:
        """Return the learning rates to try for a method; a variant without its own has those of its method."""
        return self.rates.get(name) or self.rates.get(self.base(name)) or ()

    def varied(self, name: str) -> Self:
        """Return the recipe with a variant's settings; itself for a built-in method.

        Raises:
            ConfigError: fields that do not exist, or values that cannot be.
        """
        if name not in self.variants:
            return self
        values = self.model_dump(exclude={"budget", "variants", "methods", "rates"})
        for section, fields in self.variants[name].items():
            if section != "of":
                values[section] = over(values[section], fields)
        return self.read(values, f"{self.name}: variants.{name}")

    def seeds_of(self, name: str) -> tuple[int, ...]:
        """Return the seeds of a method's runs.

        Without examples there is one, or one for each multitask prompt of which it takes its answers.
        """
        method = self.method(name)
        if method.takes_examples:
            return PUBLISHED_SEEDS[: self.seeds]
        begun = max(self.source_seeds, len(self.multitask)) if method.begins_with == "multitask prompt" else 0
        return PUBLISHED_SEEDS[: min(self.seeds, begun)] or (0,)

    def shots_of(self, name: str) -> tuple[int | None, ...]:
        """Return a method's numbers of shots: 0 where it takes no examples, None for all."""
        return tuple(None if k == "all" else k for k in self.shots) if self.method(name).takes_examples else (0,)


def recipe_model() -> type[Recipe]:
    """Return the model of a recipe's file, with a section for each training that the table of methods has now."""
    return _with_sections(tuple(target_sections().values()))


@cache
def _with_sections(of_methods: tuple[RecipeSection, ...]) -> type[Recipe]:
    fields: dict[str, Any] = {
        section.name: (section.config, Field(section.config(), description=section.description))
        for section in of_methods
        if section.name not in Recipe.model_fields
    }
    return create_model("Recipe", __base__=Recipe, __doc__=Recipe.__doc__, **fields)


def _problems_of(name: str, fields: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a variant, but for its sections' fields."""
    problems, base = [], fields.get("of")
    if name in METHODS:
        problems.append(f"variants: {name} is a method already; choose another name")
    if not isinstance(base, str) or base not in METHODS:
        problems.append(f"variants.{name}.of wants one of {', '.join(METHODS)}; got {base!r}")
    elif not METHODS[base].varies:
        problems.append(f"variants.{name}: {base} has no settings to vary")
    if not re.fullmatch(NAME, name):
        problems.append(f"variants: a name has letters, digits, _, - and . only; got {name!r}")
    for section, values in sorted(fields.items()):
        if section == "of":
            continue
        if section not in sections():
            problems.append(f"variants.{name}.{section} is none of {', '.join(sections())}")
        elif not isinstance(values, dict):
            problems.append(f"variants.{name}.{section} wants {{field: value}}; got {values!r}")
    if isinstance(fields.get("evaluate"), dict) and "rows" in fields["evaluate"]:
        problems.append(f"variants.{name}.evaluate.rows: all methods answer the same test rows")
    return problems


def known_to(section: type[ExamplesConfig], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields for all methods without those of training, where a section trains in its own way."""
    foreign = TrainingConfig.model_fields.keys() - section.model_fields.keys()
    return {name: value for name, value in fields.items() if name not in foreign}


def over(base: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with fields over it; steps that are named take the place of epochs below."""
    counted = {"epochs": None} if "steps" in fields and "epochs" not in fields and "epochs" in base else {}
    return {**base, **counted, **fields}
