"""What a recipe will take on this machine, from a short measurement: runs, steps, tokens, hours, GiB.

Every stage and method takes one step, then three; the difference is two steps without what comes before the first.
Other tasks are reckoned by their tokens.
"""

import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mptune.backbone import FrozenBackbone
from mptune.bench import Cell, chosen_cells, read_results, unfinished
from mptune.config import TrainingConfig
from mptune.data import draw_rows, load_data
from mptune.evaluation import judge
from mptune.recipes import TARGET_SECTIONS, Loaded, Recipe, section_of
from mptune.stages.distillation import distill
from mptune.stages.teachers import teach
from mptune.systems import Asked, Sources, train_system
from mptune.tasks import Task

SHOTS = 8  # training rows per class of a measurement
STEPS = (1, 3)  # of two measurements
ROWS = (8, 24)  # test rows of two measurements
OF_STUDENT = ("mpt", "mpt-group", "transfer", "from-sources")
OF_TEACHERS = ("spot", "spot-closest", "attempt", "teacher")
COUNTED = 200  # rows of a task whose tokens are counted


@dataclass(frozen=True)
class Cost:
    """What the runs of one kind will take."""

    what: str
    runs: int
    steps: int
    tokens: float  # read while training, prompts included
    hours: float


@dataclass(frozen=True)
class Plan:
    """What a recipe will take."""

    costs: tuple[Cost, ...]
    memory: float  # GiB, the most that was in use while measuring
    disk: float  # GiB, at most

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return a head and rows for a terminal."""
        total = Cost("all", *(sum(getattr(c, f) for c in self.costs) for f in ("runs", "steps", "tokens", "hours")))
        rows = [[c.what, f"{c.runs:,}", f"{c.steps:,}", f"{c.tokens / 1e6:,.1f}", _hours(c.hours)]
                for c in (*self.costs, total)]  # fmt: skip
        return ["what", "runs", "steps", "million tokens", "hours"], rows

    def summary(self) -> str:
        """Return a sentence for people."""
        hours = sum(cost.hours for cost in self.costs)
        return (
            f"About {_hours(hours)} hours on this machine, {self.memory:.1f} GiB of memory and at most "
            f"{self.disk:.1f} GiB of disk. Measured on few steps: take it for a third more or less."
        )


@dataclass(frozen=True)
class Texts:
    """How long a task's texts are, and how many it has."""

    tokens: float  # of a row, on average
    train: int
    test: int
    classes: int


@dataclass(frozen=True)
class Pace:
    """How fast a method is on the task it was measured on."""

    step: float  # seconds
    row: float  # seconds, of scoring one
    tokens: float  # of a row of that task, prompt included


def planned(
    loaded: Loaded, out: Path | None = None, *, only: Sequence[str] = (), say: Callable[[str], None] = lambda _: None
) -> Plan:
    """Return what the unfinished runs of a recipe will take.

    Args:
        out: in place of the recipe's folder.
        only: methods and targets to restrict it to.
        say: told what is measured.
    """
    recipe = loaded.recipe
    cells = unfinished(chosen_cells(loaded, only), read_results(out or Path(recipe.out)))
    methods = list(dict.fromkeys(cell.method for cell in cells))
    with tempfile.TemporaryDirectory() as scratch:
        meter = _Meter(loaded, Path(scratch), say)
        texts = {task.name: meter.texts(task) for task in (*loaded.sources, *loaded.targets)}
        costs = list(_source_costs(loaded, methods, meter, texts))
        for method in methods:
            own = [cell for cell in cells if cell.method == method]
            costs.append(_target_cost(recipe, method, own, meter, texts))
        width = meter.backbone(recipe).width
    if torch.cuda.is_available():
        memory = torch.cuda.max_memory_allocated() / 2**30
    else:
        import resource  # of Unix alone; kilobytes on Linux, bytes on macOS

        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    prompts = sum(c.runs for c in costs) * recipe.teach.prompt_length * width * 4 / 2**30
    return Plan(tuple(costs), memory, recipe.distill.teacher_cache + prompts)


def _source_costs(loaded: Loaded, methods: Sequence[str], meter: "_Meter", texts: dict[str, Texts]) -> Iterator[Cost]:
    """Yield what teachers and source trainings take; those that several methods share count once."""
    teachers: dict[str, Recipe] = {}
    students: dict[str, Recipe] = {}
    for method in methods:
        base, varied = loaded.recipe.base(method), loaded.recipe.varied(method)
        if base in OF_STUDENT:
            students.setdefault(f"{varied.backbone}{varied.teach}{varied.distill}", varied)
        if base in (*OF_STUDENT, *OF_TEACHERS):
            teachers.setdefault(f"{varied.backbone}{varied.teach}", varied)
    of_sources = [texts[task.name] for task in loaded.sources]
    for number, varied in enumerate(teachers.values()):
        pace = meter.teaching(varied)
        parts = [_training(varied.teach, [t], varied.teach.prompt_length, pace) for t in of_sources]
        yield _sum("teachers" if number == 0 else f"teachers, settings {number + 1}", parts)
    for number, varied in enumerate(students.values()):
        pace = meter.distilling(varied)
        length = varied.distill.prompt_length or varied.teach.prompt_length
        parts = [_training(varied.distill, of_sources, length, pace)] * varied.source_seeds
        yield _sum("source training" if number == 0 else f"source training, settings {number + 1}", parts)


def _target_cost(recipe: Recipe, method: str, cells: Sequence[Cell], meter: "_Meter", texts: dict[str, Texts]) -> Cost:
    base, varied = recipe.base(method), recipe.varied(method)
    if base == "constant":
        return Cost(method, len(cells), 0, 0, 0)
    pace, length = meter.method(method)
    section = section_of(base)
    tried = len(recipe.rates_of(method))
    parts = []
    for cell in cells:
        tasks = [texts[name] for name in cell.tasks]
        rows = sum(min(t.test, varied.evaluate.rows or t.test) for t in tasks)
        answered = rows * pace.row * _mean([t.tokens + length for t in tasks]) / pace.tokens
        trained = Cost("", 1, 0, 0, 0)
        if section:
            config: TrainingConfig = getattr(varied, section)
            fields = varied.per_task.get(cell.tasks[0], {}) if len(tasks) == 1 else {}
            config = type(config).read({**config.model_dump(), **fields, "shots": cell.shots}, "per_task")
            if len(tasks) > 1:
                config = config.model_copy(update={"steps": config.steps * len(tasks)})
            trained = _training(config, tasks, length, pace)
        first = 1 + (tried if tried > 1 and cell.seed == 0 else 0)  # rates are tried with the first seed
        parts.append(Cost("", trained.runs * first, trained.steps * first, trained.tokens * first,
                          (trained.hours + answered / 3600) * first))  # fmt: skip
    return _sum(method, parts)


def _training(config: TrainingConfig, tasks: Sequence[Texts], length: int, pace: Pace) -> Cost:
    """Return what one training takes, its validations included."""
    few = [t.train if config.shots is None else min(t.train, config.shots * t.classes) for t in tasks]
    steps = config.steps if config.epochs is None else math.ceil(config.epochs * sum(few) / config.batch_size)
    tokens = _mean([t.tokens for t in tasks]) + length
    size = min(config.batch_size, few[0]) if len(tasks) == 1 else config.batch_size
    checks = 0.0
    if config.validation_shots != 0:
        shots = config.validation_shots or config.shots
        rows = sum(config.validation_rows if shots is None else shots * t.classes for t in tasks)
        checks = rows * (2 + steps // config.validate_every) * pace.row
    ratio = tokens / pace.tokens
    return Cost("", 1, steps, steps * size * tokens, (steps * pace.step + checks) * ratio / 3600)


class _Meter:
    """Measures stages and methods on the first source task and the first target."""

    def __init__(self, loaded: Loaded, scratch: Path, say: Callable[[str], None]) -> None:
        self._loaded, self._scratch, self._say = loaded, scratch, say
        untrained = {"steps": 0, "epochs": None, "shots": SHOTS, "validation_shots": 0}
        recipe = loaded.recipe
        start = {s: getattr(recipe, s).model_copy(update=untrained) for s in ("teach", "distill")}
        self._sources = Sources(replace(loaded, recipe=recipe.model_copy(update=start)), scratch, lambda _: None)

    def backbone(self, recipe: Recipe) -> FrozenBackbone:
        """Return the frozen model."""
        return self._sources.backbone(recipe)

    def texts(self, task: Task) -> Texts:
        """Count a task's rows, and the tokens of some."""
        splits = ("train", "test") if task in self._loaded.targets else ("train",)
        data = load_data(task, splits, self._loaded.data_dir)  # type: ignore[arg-type]
        recipe = self._loaded.recipe
        longest = recipe.adapt.max_input_tokens if data.test else recipe.teach.max_input_tokens
        some = [e.input for e in draw_rows(data.train, COUNTED, seed=0)]
        ids = self.backbone(recipe).encode_inputs(some, longest, 0, 0)
        return Texts(_mean([len(i) for i in ids]), len(data.train), len(data.test), max(1, len(task.verbalizer)))

    def teaching(self, recipe: Recipe) -> Pace:
        """Measure stage 1."""
        self._say("measuring: teachers")
        task, length = self._loaded.sources[0], recipe.teach.prompt_length
        step = _each(lambda n: teach(task, self.backbone(recipe), _short(recipe.teach, n), **self._data), *STEPS)
        return self._pace(step, torch.zeros(length, self.backbone(recipe).width), length, task, self.backbone(recipe))

    def distilling(self, recipe: Recipe) -> Pace:
        """Measure stage 2."""
        self._say("measuring: source training")
        teachers, backbone = self._sources.teachers(self._bare(recipe)), self.backbone(recipe)
        made: list[Any] = []

        def run(steps: int) -> None:
            made[:] = [distill(self._loaded.sources, teachers, backbone, _short(recipe.distill, steps), **self._data)]

        step = _each(run, *STEPS)
        pace = self._pace(step, made[0].collapse()[0], made[0].prompt_length, self._loaded.sources[0], backbone)
        return replace(pace, tokens=_mean([self.texts(t).tokens for t in self._loaded.sources]) + made[0].prompt_length)

    def method(self, method: str) -> tuple[Pace, int]:
        """Measure a method on the first target, and return its prompt length too."""
        self._say(f"measuring: {method}")
        recipe, task = self._loaded.recipe, self._loaded.targets[0]
        base = recipe.base(method)
        base = "transfer" if base in ("from-sources", "teacher") else base  # what it costs to ask them is the same
        made: list[Any] = []

        def run(steps: int) -> None:
            varied = self._bare(recipe.varied(method))
            sections = {s: _short(getattr(varied, s), steps) for s in TARGET_SECTIONS}
            asked = Asked(varied.model_copy(update={**sections, "per_task": {}}), (task,), SHOTS, 0, None, None)
            made[:] = train_system(base, asked, self._sources)

        run(0)  # what is made once, a multitask prompt say, is not counted
        step = _each(run, *STEPS) if section_of(base) else 0.0
        (system,) = made
        return self._pace(step, system.prompt, system.length, task, system.backbone), system.length

    @property
    def _data(self) -> dict[str, Any]:
        return {"data_dir": self._loaded.data_dir}

    def _bare(self, recipe: Recipe) -> Recipe:
        """Return a recipe whose teachers and multitask prompts are untrained, of the right shapes."""
        return recipe.model_copy(update={s: _short(getattr(recipe, s), 0) for s in ("teach", "distill")})

    def _pace(self, step: float, prompt: Any, length: int, task: Task, backbone: FrozenBackbone) -> Pace:
        splits = ("train", "test") if task in self._loaded.targets else ("train",)
        config = self._loaded.recipe.evaluate

        def ask(rows: int) -> object:
            of = config.model_copy(update={"rows": rows})
            return judge(prompt, length, task, backbone, split=splits[-1], config=of, **self._data)  # type: ignore[arg-type]

        return Pace(step, _each(ask, *ROWS), self.texts(task).tokens + length)


def _short(config: Any, steps: int) -> Any:
    return config.model_copy(update={"steps": steps, "epochs": None, "shots": SHOTS, "validation_shots": 0})


def _each(run: Callable[[int], object], few: int, many: int) -> float:
    """Return the seconds of one more by the difference of two runs; where noise hides it, with what is around it."""
    run(few)  # the first is slower
    spent = []
    for amount in (few, many):
        started = time.monotonic()
        run(amount)
        spent.append(time.monotonic() - started)
    more = (spent[1] - spent[0]) / (many - few)
    return more if more > 0 else spent[1] / many


def _sum(what: str, parts: Sequence[Cost]) -> Cost:
    return Cost(what, *(sum(getattr(p, f) for p in parts) for f in ("runs", "steps", "tokens", "hours")))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 1 else f"{hours:.2f}"
