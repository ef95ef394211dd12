"""Carrying out a recipe: methods by tasks, shots and seeds, one line of results a run.

Each finished run stands in ``results.jsonl`` and is not done again; table and report are functions of those lines.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from mptune.artifacts import MultitaskPrompt
from mptune.baselines.weights import import_peft
from mptune.config import PUBLISHED_SEEDS
from mptune.data import TaskData, draw_rows, load_data
from mptune.errors import DataError, UsageError
from mptune.evaluation import Judged, judge
from mptune.files import write_file
from mptune.metrics import constant_answer, credits, require_libraries, score
from mptune.progress import Standing
from mptune.provenance import circumstances, of_backbone, of_sources, trainings
from mptune.recipes import OF_GROUPS, OF_PEFT, Loaded, Recipe
from mptune.results import FROM, MULTITASK, SIMILARITY, SOURCES, TABLE, add_results, read_results
from mptune.resuming import note_recipe, refuse_change, refuse_other_rows, rows_digest
from mptune.runs import processes
from mptune.systems import FROM_TEACHERS, Asked, Kind, Sources, System, from_source, train_system
from mptune.tables import BALANCED, results_table, standing_table
from mptune.tasks import SPLITS, Example, Split, Task
from mptune.training import versions


@dataclass(frozen=True)
class Cell:
    """One run: a method, its targets (one, or all of them as a group), a number of shots and a seed."""

    method: str
    tasks: tuple[str, ...]
    shots: int | None  # 0 where no examples are taken, None for all
    seed: int

    @property
    def title(self) -> str:
        """The run in words."""
        few = "" if self.shots == 0 else f", {'all' if self.shots is None else self.shots} shots, seed {self.seed}"
        return f"{self.method}, {'+'.join(self.tasks)}{few}"

    @property
    def keys(self) -> list[tuple[Any, ...]]:
        """What names the lines of this run, one for each of its tasks."""
        return [(self.method, task, self.shots, self.seed) for task in self.tasks]


def run_recipe(
    loaded: Loaded,
    out: Path | None = None,
    *,
    only: Sequence[str] = (),
    watch: Callable[[Standing], None] = lambda _: None,
) -> Path:
    """Carry out what of a recipe is not done yet, and return the folder with results.jsonl and results.md.

    Args:
        out: in place of the recipe's folder.
        only: methods and targets to restrict this call to; none of either kind means all of it.
        watch: told what begins, and how far the comparison is.

    Raises:
        ResumeError: the folder holds results of another configuration, other tasks, rows or groups, or somebody
            else's files; names what differs.
        ResultsError: lines of its results are damaged.
        UsageError: ``only`` names what the recipe does not have; or several processes were started.
        MissingExtraError: a method or a metric needs libraries that are not installed.
        DataError: every problem of every task at once.
    """
    if processes() > 1:
        raise UsageError("a comparison runs in one process; start it without torchrun or accelerate launch")
    folder = out or Path(loaded.recipe.out)
    cells = chosen_cells(loaded, only)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".bench.lock")
    try:
        with lock.acquire(timeout=0):
            return _run(loaded, folder, cells, watch)
    except Timeout:
        raise UsageError(f"another process is filling {folder}; wait for it, or choose another --out") from None


def _run(loaded: Loaded, folder: Path, cells: Sequence[Cell], watch: Callable[[Standing], None]) -> Path:
    recipe = loaded.recipe
    lines = read_results(folder)
    refuse_change(folder, loaded, lines)
    # What is missing, and all data problems, come first, before the backbone takes its time to load.
    if any(recipe.base(cell.method) in OF_PEFT for cell in cells):
        import_peft()
    asked = {name for cell in cells for name in cell.tasks}
    tasks_scored = [task for task in loaded.targets if task.name in asked]
    if any(recipe.base(cell.method) in FROM_TEACHERS for cell in cells):
        tasks_scored += loaded.sources
    require_libraries([metric for task in tasks_scored for metric in task.metrics])
    failures: list[DataError] = []
    read: dict[str, TaskData] = {}  # the targets last: a source task may have the name of one
    for tasks, splits in ((loaded.sources, SPLITS[:2]), (loaded.targets, SPLITS)):
        for task in tasks:
            try:
                read[task.name] = load_data(task, splits, loaded.data_dir)
            except DataError as error:
                failures.append(error)
    if failures:
        raise DataError.of_all(failures)
    refuse_other_rows(loaded, lines, read)
    note_recipe(folder, loaded, lines)
    todo = unfinished(cells, lines)

    def tell(title: str) -> None:
        left = unfinished(cells, lines)
        seconds = _seconds_left(left, lines, sources)
        watch(Standing(len(cells) - len(left), len(cells), title, seconds, standing_table(lines)))

    sources = Sources(loaded, folder, tell)
    for cell in todo:
        tell(cell.title)
        started, shared = time.monotonic(), sources.seconds
        found = _outcome(cell, sources, lines)
        own = time.monotonic() - started - (sources.seconds - shared)  # what later runs find made is nobody's own
        seconds = round(own / len(found), 1)
        about = circumstances(sources.backbone(recipe.varied(cell.method)))
        found = [{**line, "seconds": seconds, **about} for line in found]
        done = {_key(line) for line in lines}  # of a group some lines may stand already
        found = [line for line in found if _key(line) not in done]
        add_results(folder, found)
        lines += found
    tell("")
    if (folder / MULTITASK).is_dir():
        write_file(folder / SIMILARITY, json.dumps(_similarities(folder, lines)))
    write_file(folder / SOURCES, "".join(json.dumps(line) + "\n" for line in of_sources(folder)))
    methods = [m for m in recipe.methods if m != "from-sources"]  # those stand in the report
    write_file(folder / TABLE, results_table(recipe.name, _describe(recipe), lines, methods))
    return folder


def chosen_cells(loaded: Loaded, only: Sequence[str] = ()) -> list[Cell]:
    """Return the runs of a recipe, those that do not vary with shots and seeds once.

    Raises:
        UsageError: ``only`` names what the recipe does not have.
    """
    recipe = loaded.recipe
    targets = [task.name for task in loaded.targets]
    unknown = [name for name in only if name not in (*recipe.methods, *targets)]
    if unknown:
        raise UsageError(
            f"--only wants methods and targets of the recipe; got {', '.join(unknown)}. "
            f"Its methods: {', '.join(recipe.methods)}. Its targets: {', '.join(targets)}."
        )
    methods = [m for m in recipe.methods if m in only] or list(recipe.methods)
    tasks = [t for t in targets if t in only] or targets
    cells = [cell for method in methods for cell in _cells(loaded, method, tasks)]
    if not cells:
        asked = ", ".join(only) or "the recipe"
        raise UsageError(f"{asked} leaves no run: teacher wants a target that is a source task too")
    return sorted(cells, key=lambda cell: cell.seed)  # what is stopped early has run every method alike


def _cells(loaded: Loaded, method: str, targets: Sequence[str]) -> Iterator[Cell]:
    recipe, base = loaded.recipe, loaded.recipe.base(method)
    names = [task.name for task in loaded.sources]
    for shots in recipe.shots_of(method):
        for seed in recipe.seeds_of(method):
            if base in OF_GROUPS:  # the group is what it is, whatever part of it is asked for
                yield Cell(method, tuple(task.name for task in loaded.targets), shots, seed)
            elif base == "from-sources":
                yield from (Cell(f"{FROM}{name}", (task,), shots, seed) for name in names for task in targets)
            else:
                wanted = [task for task in targets if base != "teacher" or task in names]
                yield from (Cell(method, (task,), shots, seed) for task in wanted)


def unfinished(cells: Sequence[Cell], lines: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """Return the runs of which a line is missing."""
    done = {_key(line) for line in lines}
    return [cell for cell in cells if not done.issuperset(cell.keys)]


def _seconds_left(cells: Sequence[Cell], lines: Sequence[Mapping[str, Any]], sources: Sources) -> float | None:
    """Return what runs will take, as finished ones of the same method did, or of any, with what they begin with.

    None where nothing of a kind is finished yet, and so nothing tells.
    """
    spent: dict[str, list[float]] = {}
    trained: list[float] = []
    for line in lines:
        if line.get("seconds") is not None:  # lines of earlier versions lack some fields
            spent.setdefault(line["method"], []).append(line["seconds"])
            if (line.get("parameters") or {}).get("trained"):
                trained.append(line["seconds"])
    anything = trained or [seconds for each in spent.values() for seconds in each]
    known = [(len(cell.tasks), spent.get(cell.method, anything)) for cell in cells]
    pending: dict[Kind, set[Path]] = {}
    for method in dict.fromkeys(cell.method for cell in cells):
        for kind, folders in sources.pending(method).items():
            pending.setdefault(kind, set()).update(folders)
    known += [(len(folders), sources.spent.get(kind, [])) for kind, folders in pending.items() if folders]
    if not all(seconds for _, seconds in known):
        return None
    return sum(count * sum(seconds) / len(seconds) for count, seconds in known)


def _outcome(cell: Cell, sources: Sources, lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of one run, one for each of its tasks, without its circumstances."""
    loaded = sources.loaded
    by_name = {task.name: task for task in loaded.targets}
    tasks = tuple(by_name[name] for name in cell.tasks)
    if cell.method == "constant":
        return [_constant(cell, tasks[0], loaded)]
    chosen: dict[str, Any] = {}
    if cell.method.startswith(FROM):
        systems = [from_source(cell.method.removeprefix(FROM), loaded.recipe, sources, cell.seed)]
    else:
        rate, systems = _at_its_rate(cell, tasks, sources, lines)
        chosen = {} if rate is None else {"lr": rate}
    found = []
    for task, system in zip(tasks, systems, strict=True):
        judged = _judged(system, _with_macro_f1(task), sources, cell, "test", loaded.recipe.evaluate.rows)
        found.append({
            "method": cell.method, "task": task.name, "shots": cell.shots, "seed": cell.seed, **chosen, **system.chosen,
            "scores": [s.as_dict() for s in judged.scores],
            "credit": _credit(task, judged.examples, judged.texts),
            "test_rows": rows_digest(judged.examples),
            "parameters": {"trained": system.trained, "stored": system.stored},
            "curve": list(system.metrics),
            "trainings": trainings(system.cards),
            "evaluate": loaded.recipe.varied(cell.method).evaluate.model_dump(mode="json"),
            "backbone": of_backbone(sources.backbone(loaded.recipe.varied(cell.method))),
        })  # fmt: skip
    return found


def _constant(cell: Cell, task: Task, loaded: Loaded) -> dict[str, Any]:
    """Return the line of the predictor that always says the commonest training label."""
    data = load_data(task, ("train", "test"), loaded.data_dir)
    word = constant_answer(task, data.train)
    rows = draw_rows(data.test, loaded.recipe.evaluate.rows or len(data.test), seed=0)  # those of the other methods
    answers = [word] * len(rows)
    return {
        "method": cell.method, "task": task.name, "shots": 0, "seed": 0, "answer": word if task.verbalizer else None,
        "scores": [s.as_dict() for s in score(_with_macro_f1(task), "test", rows, answers)],
        "credit": _credit(task, rows, answers), "test_rows": rows_digest(rows),
        "parameters": {"trained": 0, "stored": 0}, "curve": [],
    }  # fmt: skip


def _trained(cell: Cell, tasks: tuple[Task, ...], sources: Sources, rate: float | None) -> list[System]:
    own_recipe = sources.loaded.recipe
    recipe = own_recipe.varied(cell.method)
    out = _place(sources.folder, cell, rate)
    return train_system(own_recipe.base(cell.method), Asked(recipe, tasks, cell.shots, cell.seed, rate, out), sources)


def _place(folder: Path, cell: Cell, rate: float | None) -> Path:
    """Return the folder of a run's files."""
    name = cell.tasks[0] if len(cell.tasks) == 1 else "group"
    shots = "all" if cell.shots is None else cell.shots
    tried = "" if rate is None else f"-{rate:.12g}"
    return folder / "targets" / cell.method / f"{name}-{shots}-{cell.seed}{tried}"


def _judged(system: System, task: Task, sources: Sources, cell: Cell, split: Split, rows: int | None) -> Judged:
    config = sources.loaded.recipe.varied(cell.method).evaluate.model_copy(update={"rows": rows})
    return judge(
        system.prompt, system.length, task, system.backbone, split=split, config=config,
        data_dir=sources.loaded.data_dir,
    )  # fmt: skip


def _at_its_rate(
    cell: Cell, tasks: tuple[Task, ...], sources: Sources, lines: Sequence[Mapping[str, Any]]
) -> tuple[float | None, list[System]]:
    """Return a run's learning rate and what it made.

    Of several rates it is that with the best validation score for the first seed of a task and number of shots; None
    where the recipe has nothing to try.
    """
    recipe = sources.loaded.recipe
    rates = recipe.rates_of(cell.method)
    if len(rates) > 1:
        alike = (cell.method, cell.tasks[0], cell.shots)
        rates = next(((line["lr"],) for line in lines if _key(line)[:3] == alike), rates)
    if len(rates) < 2:
        rate = rates[0] if rates else None
        return rate, _trained(cell, tasks, sources, rate)
    best: tuple[float, float] | None = None
    made: list[System] = []
    for rate in rates:
        systems = _trained(cell, tasks, sources, rate)  # runs of the first seed come first
        values = [
            _judged(system, task, sources, cell, "validation", recipe.tuning_rows).scores[0].value
            for task, system in zip(tasks, systems, strict=True)
        ]
        found = (sum(values) / len(values), rate)
        if best is None or found > best:
            best, made = found, systems
    assert best is not None
    return best[1], made


def _with_macro_f1(task: Task) -> Task:
    """Return a task that is judged by macro-F1 too: unlike accuracy, it does not reward a constant answer."""
    more = () if BALANCED in task.metrics or not task.verbalizer else (BALANCED,)
    return task.model_copy(update={"metrics": (*task.metrics, *more)})


def _credit(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> list[float] | None:
    """Return each row's share of the score, as short as it can be written; None where rows have none."""
    found = credits(task, examples, answers)
    return None if found is None else [int(c) if c in (0, 1) else round(c, 4) for c in found]


def _similarities(folder: Path, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the cosines of all tasks' prompts and of their task matrices.

    Source tasks come first, then targets as `mpt` adapted them with the first seed and the fewest shots.
    """
    source = MultitaskPrompt.from_pretrained(folder / MULTITASK)
    prompts, matrices = [source.collapse()], [source.task_vectors.matrices]
    tasks = [{"name": task.name, "role": "source"} for task in source.tasks]
    adapted = [line for line in lines if line["method"] == "mpt" and line["seed"] == PUBLISHED_SEEDS[0]]
    for line in sorted(adapted, key=lambda line: math.inf if line["shots"] is None else line["shots"]):
        place = _place(folder, Cell("mpt", (line["task"],), line["shots"], line["seed"]), line.get("lr"))
        # A prompt may have been removed since, and of a target that is a source task its own vectors stand already.
        if line["task"] not in {task["name"] for task in tasks} and place.is_dir():
            made = MultitaskPrompt.from_pretrained(place)
            tasks.append({"name": line["task"], "role": "target"})
            prompts.append(made.collapse())
            matrices.append(made.task_vectors.matrices)
    return {
        "tasks": tasks,
        **{
            name: [[round(float(c), 4) for c in row] for row in _cosines(torch.cat(values).flatten(1))]
            for name, values in (("prompts", prompts), ("matrices", matrices))
        },
    }


def _cosines(rows: torch.Tensor) -> torch.Tensor:
    unit = torch.nn.functional.normalize(rows, dim=1)
    return unit @ unit.T


def _key(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return (line["method"], line["task"], line["shots"], line["seed"])


def _describe(recipe: Recipe) -> Sequence[str]:
    tried = "; ".join(f"{m}: {', '.join(f'{lr:g}' for lr in lrs)}" for m, lrs in recipe.rates.items())
    return (
        f"Backbone: {recipe.backbone.name}, weights in {recipe.backbone.dtype}.",
        f"Source tasks: {', '.join(Path(s).stem for s in recipe.sources)}.",
        f"Prompt length {recipe.teach.prompt_length}; adaptation {recipe.adapt.steps} steps; "
        f"prompt tuning {recipe.prompt_tuning.steps} steps; learning rates tried: {tried or 'none'}.",
        f"Versions: {', '.join(f'{k} {v}' for k, v in versions().items())}; threads {torch.get_num_threads()}.",
    )
