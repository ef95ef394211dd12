"""A recipe: the whole comparison in one file, from source tasks to the table of results.

Each finished run is one line of ``results.jsonl`` and is not done again; the table is a function of those lines.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, field_validator

from mptune.artifacts import MultitaskPrompt, write_file
from mptune.backbone import FrozenBackbone, load_backbone
from mptune.config import (
    PUBLISHED_SEEDS,
    AdaptConfig,
    BackboneConfig,
    Config,
    DistillConfig,
    EvaluateConfig,
    TeachConfig,
)
from mptune.data import draw_rows, load_data
from mptune.errors import ConfigError, ResumeError
from mptune.evaluation import evaluate
from mptune.metrics import constant_answer, score
from mptune.runs import first_difference
from mptune.stages.adaptation import adapt
from mptune.stages.distillation import distill
from mptune.stages.teachers import teach
from mptune.tables import BALANCED, results_table
from mptune.tasks import Task, get_tasks
from mptune.tasks.yaml import read_yaml
from mptune.training import versions

RESULTS = "results.jsonl"
TABLE = "results.md"

Method = Literal["constant", "zero-shot", "prompt-tuning", "transfer", "mpt-no-distillation", "mpt"]


class PromptTuningConfig(TeachConfig):
    """The opponent: prompt tuning from scratch on the target's own examples."""

    lrs: tuple[float, ...] = ()
    """Learning rates to try, in units of the embeddings' RMS. The best on validation rows, with the first seed, is
    taken per task and number of shots; ``lr`` where there is nothing to try."""
    tuning_rows: int = Field(200, ge=1)
    """Validation rows on which learning rates are compared: more than a few-shot user would have."""


class Recipe(Config):
    """What to learn from, what to adapt to, by which methods, how often."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Names the run."""
    out: str
    """Folder of prompts and results, relative to where the command runs."""
    backbone: BackboneConfig = BackboneConfig()
    """The frozen model."""
    data: str | None = None
    """Folder with local rows of hub tasks, relative to the recipe's file."""
    sources: tuple[str, ...] = Field(min_length=2)
    """Source tasks: built-in names or YAML files relative to the recipe's file."""
    targets: tuple[str, ...] = Field(min_length=1)
    """Target tasks, likewise."""
    methods: tuple[Method, ...] = ("constant", "zero-shot", "prompt-tuning", "transfer", "mpt")
    """What is compared, in the table's order."""
    shots: tuple[int, ...] = (16,)
    """Labelled target examples per class."""
    seeds: int = Field(3, ge=1, le=len(PUBLISHED_SEEDS))
    """The first so many of the ten published seeds."""
    teach: TeachConfig = TeachConfig()
    """Stage 1."""
    distill: DistillConfig = DistillConfig()
    """Stage 2."""
    adapt: AdaptConfig = AdaptConfig()
    """Stage 3."""
    prompt_tuning: PromptTuningConfig = PromptTuningConfig()
    """The opponent."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """How the test split is scored."""

    @field_validator("sources", "targets")
    @classmethod
    def _names_differ(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} stands twice")
        return names


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
            values[section] = {**(values.get(section) or {}), **fields}
        recipe = Recipe.read(values, str(path))

        def located(name: str) -> str:
            return str(path.parent / name) if name.endswith((".yaml", ".yml")) else name

        sources = get_tasks([located(n) for n in recipe.sources])
        targets = get_tasks([located(n) for n in recipe.targets])
        data_dir = path.parent / recipe.data if recipe.data else None
        if data_dir is not None and not data_dir.is_dir():
            raise ConfigError(str(path), [f"data: there is no folder {recipe.data} beside the recipe"])
        return cls(recipe, tuple(sources), tuple(targets), data_dir)


def run_recipe(loaded: Loaded, out: Path | None = None, *, say: Callable[[str], None] = lambda _: None) -> Path:
    """Carry out what of a recipe is not done yet, and return the folder with results.jsonl and results.md.

    Args:
        out: in place of the recipe's folder.
        say: told what begins.

    Raises:
        ResumeError: the folder holds results of another configuration; names the first field that differs.
    """
    recipe = loaded.recipe
    folder = out or Path(recipe.out)
    _refuse_change(folder, recipe)
    # All data problems come first, before the backbone takes its time to load.
    for task in (*loaded.sources, *loaded.targets):
        load_data(
            task,
            ("train", "validation") if task in loaded.sources else ("train", "validation", "test"),
            loaded.data_dir,
        )
    done = {_key(line) for line in read_results(folder)}
    todo = [cell for cell in _cells(loaded) if _key(cell) not in done]
    if todo:
        backbone = load_backbone(recipe.backbone)
        multitask: dict[str, MultitaskPrompt] = {}
        tuned: dict[tuple[str, int], float] = {}  # the learning rate of each target and number of shots, once found
        for number, cell in enumerate(todo, start=1):
            method = cell["method"]
            if method in ("transfer", "mpt", "mpt-no-distillation"):
                kind = "multitask-no-distillation" if method == "mpt-no-distillation" else "multitask"
                if kind not in multitask:
                    multitask[kind] = _source_training(loaded, backbone, folder, kind, say)
            say(f"{number} of {len(todo)}: {_title(cell)}")
            started = time.monotonic()
            line = {**cell, **_outcome(loaded, backbone, folder, cell, multitask, tuned)}
            line |= {
                "seconds": round(time.monotonic() - started, 1),
                "dtype": backbone.config.dtype,
                "versions": versions(),
                "commit": commit(),
            }
            _append(folder / RESULTS, line)
    write_file(folder / TABLE, results_table(recipe.name, _describe(recipe), read_results(folder), recipe.methods))
    return folder


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of finished runs; a last line that was cut by a kill does not count."""
    file = folder / RESULTS
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def _source_training(
    loaded: Loaded, backbone: FrozenBackbone, folder: Path, kind: str, say: Callable[[str], None]
) -> MultitaskPrompt:
    """Stages 1 and 2; what is finished comes from its folder."""
    recipe = loaded.recipe
    teachers = []
    for task in loaded.sources:
        say(f"teacher: {task.name}")
        out = folder / "teachers" / task.name
        teachers.append(teach(task, backbone, recipe.teach, out=out, data_dir=loaded.data_dir))
    config = recipe.distill
    if kind == "multitask-no-distillation":
        config = config.model_copy(update={"distill_weight": 0.0})
    say(f"source training: {kind}")
    return distill(loaded.sources, teachers, backbone, config, out=folder / kind, data_dir=loaded.data_dir)


def _cells(loaded: Loaded) -> Iterator[dict[str, Any]]:
    """Yield every run of the recipe: method, task, shots and seed, those that do not vary with them once."""
    recipe = loaded.recipe
    seeds = PUBLISHED_SEEDS[: recipe.seeds]
    for method in recipe.methods:
        for task in loaded.targets:
            if method in ("constant", "zero-shot", "transfer"):
                yield {"method": method, "task": task.name, "shots": 0, "seed": 0}
            else:
                for shots in recipe.shots:
                    yield from ({"method": method, "task": task.name, "shots": shots, "seed": s} for s in seeds)


def _outcome(
    loaded: Loaded,
    backbone: FrozenBackbone,
    folder: Path,
    cell: dict[str, Any],
    multitask: dict[str, MultitaskPrompt],
    tuned: dict[tuple[str, int], float],
) -> dict[str, Any]:
    """Return the scores of one run, and what was chosen on the way."""
    recipe, method = loaded.recipe, cell["method"]
    (task,) = (t for t in loaded.targets if t.name == cell["task"])
    judged = _with_macro_f1(task)
    if method == "constant":
        data = load_data(task, ("train", "test"), loaded.data_dir)
        word = constant_answer(task, data.train)
        rows = draw_rows(data.test, recipe.evaluate.rows or len(data.test), seed=0)  # those of the other methods
        scores = score(judged, "test", rows, [word] * len(rows))
        return {"answer": word, "scores": [s.as_dict() for s in scores]}
    chosen: dict[str, Any] = {}
    prompt: MultitaskPrompt | None = None
    few = {"shots": cell["shots"], "seed": cell["seed"]}
    out = folder / "targets" / method / f"{task.name}-{cell['shots']}-{cell['seed']}"
    if method == "prompt-tuning":
        wanted = (task.name, cell["shots"])
        if wanted not in tuned:
            tuned[wanted] = _tuned_lr(loaded, backbone, folder, task, cell["shots"])
        chosen = {"lr": tuned[wanted]}
        prompt = _prompt_tuning(loaded, backbone, folder, task, lr=tuned[wanted], **few)
    elif method != "zero-shot":
        source = multitask["multitask-no-distillation" if method == "mpt-no-distillation" else "multitask"]
        # Unadapted transfer draws no examples: the mean of the source tasks' vectors, as it is.
        update = {"steps": 0, "initialise": "mean-vectors"} if method == "transfer" else few
        prompt = adapt(
            source, task, backbone, recipe.adapt.model_copy(update=update), out=out, data_dir=loaded.data_dir
        )
    scores = evaluate(prompt, judged, backbone, split="test", config=recipe.evaluate, data_dir=loaded.data_dir)
    return {**chosen, "scores": [s.as_dict() for s in scores]}


def _with_macro_f1(task: Task) -> Task:
    """Return a task that is judged by macro-F1 too: unlike accuracy, it does not reward a constant answer."""
    more = () if BALANCED in task.metrics or not task.verbalizer else (BALANCED,)
    return task.model_copy(update={"metrics": (*task.metrics, *more)})


def _tuned_lr(loaded: Loaded, backbone: FrozenBackbone, folder: Path, task: Task, shots: int) -> float:
    """Return the learning rate with the best validation score for the first seed of a task and number of shots."""
    settings = loaded.recipe.prompt_tuning
    if len(settings.lrs) < 2:
        return settings.lrs[0] if settings.lrs else settings.lr
    found = []
    for lr in settings.lrs:
        prompt = _prompt_tuning(loaded, backbone, folder, task, shots=shots, seed=PUBLISHED_SEEDS[0], lr=lr)
        rows = loaded.recipe.evaluate.model_copy(update={"rows": settings.tuning_rows})
        scores = evaluate(prompt, task, backbone, split="validation", config=rows, data_dir=loaded.data_dir)
        found.append((scores[0].value, lr))
    return max(found)[1]


def _prompt_tuning(
    loaded: Loaded, backbone: FrozenBackbone, folder: Path, task: Task, *, shots: int, seed: int, lr: float
) -> MultitaskPrompt:
    """Return the prompt learnt from scratch; that of a rate already tried comes from its folder."""
    fields = loaded.recipe.prompt_tuning.model_dump(exclude={"lrs", "tuning_rows"})
    config = TeachConfig(**{**fields, "shots": shots, "seed": seed, "lr": lr})
    out = folder / "targets" / "prompt-tuning" / f"{task.name}-{shots}-{seed}-{lr:g}"
    return teach(task, backbone, config, out=out, data_dir=loaded.data_dir)


def _refuse_change(folder: Path, recipe: Recipe) -> None:
    """Raise ResumeError if the folder's results come from other settings; more methods or seeds are welcome."""
    free = {"name", "out", "targets", "methods", "shots", "seeds"}
    now = json.loads(recipe.model_dump_json(exclude=free))
    file = folder / "recipe.json"
    if file.is_file():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            before = {}
        changed = first_difference(before, now)
        if changed is not None:
            field, old, new = changed
            raise ResumeError(
                f"{folder} holds results with {field} = {old}, and now it is {new}. "
                "Take the old value, choose another --out, or remove the folder."
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_file(file, json.dumps(now, indent=2))


def commit() -> str | None:
    """Return the commit of the checkout that this package runs from, with ``-dirty`` if it was changed; else None."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603  fixed words
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # site-packages may lie in somebody else's checkout
        return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _append(file: Path, line: dict[str, Any]) -> None:
    """Add a line, whole or not at all."""
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    if before and not before.endswith("\n"):  # cut by a kill of an earlier version
        before = before[: before.rfind("\n") + 1]
    write_file(file, before + json.dumps(line) + "\n")


def _key(line: dict[str, Any]) -> tuple[Any, ...]:
    return (line["method"], line["task"], line["shots"], line["seed"])


def _title(cell: dict[str, Any]) -> str:
    few = f", {cell['shots']} shots, seed {cell['seed']}" if cell["shots"] else ""
    return f"{cell['method']}, {cell['task']}{few}"


def _describe(recipe: Recipe) -> Sequence[str]:
    return (
        f"Backbone: {recipe.backbone.name}, weights in {recipe.backbone.dtype}.",
        f"Source tasks: {', '.join(Path(s).stem for s in recipe.sources)}.",
        f"Prompt length {recipe.teach.prompt_length}; adaptation {recipe.adapt.steps} steps; "
        f"prompt tuning {recipe.prompt_tuning.steps} steps, learning rates tried: "
        f"{', '.join(f'{lr:g}' for lr in recipe.prompt_tuning.lrs) or f'{recipe.prompt_tuning.lr:g}'}.",
        f"Versions: {', '.join(f'{k} {v}' for k, v in versions().items())}; threads {torch.get_num_threads()}.",
    )
