"""Carrying out a recipe: methods by tasks, shots and seeds, one line of results a run.

Each finished run stands in ``results.jsonl`` and is not done again; table and report are functions of those lines.
"""

import json
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from mptune.answers.classes import confusion
from mptune.answers.metrics import credits, require_libraries, score
from mptune.comparison.guard import note_recipe, refuse_bad_rows, refuse_change, refuse_other_rows, rows_digest
from mptune.comparison.loaded import Loaded
from mptune.comparison.provenance import circumstances, of_backbone, of_sources, trainings
from mptune.comparison.report.markdown import results_page, standing_table
from mptune.comparison.report.reading import Results
from mptune.comparison.results import (
    BALANCED,
    FROM,
    SIMILARITY,
    SOURCES,
    TABLE,
    Line,
    Parameters,
    add_results,
    read_results,
)
from mptune.comparison.similarity import similarities
from mptune.comparison.systems import Kind, Sources, System
from mptune.comparison.trials import Trial, chosen_trials, rows_needed, unfinished
from mptune.errors import MissingExtraError, UsageError
from mptune.files import beside, clean, write_file
from mptune.model.memory import give_back
from mptune.progress import Standing
from mptune.stages.experiment import versions
from mptune.stages.run import processes
from mptune.tasks.task import Example, Split, Task

Watch = Callable[[Standing], None]


def run_recipe(
    loaded: Loaded, out: Path | None = None, *, only: Sequence[str] = (), watch: Watch = lambda _: None
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
    folder = out or beside(Path(), loaded.recipe.out)
    trials = chosen_trials(loaded, only)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".bench.lock")
    try:
        with lock.acquire(timeout=0):
            clean(folder)
            return _run(loaded, folder, trials, watch)
    except Timeout:
        raise UsageError(f"another process is filling {folder}; wait for it, or choose another --out") from None


def _run(loaded: Loaded, folder: Path, trials: Sequence[Trial], watch: Watch) -> Path:
    lines, recipe = read_results(folder), loaded.recipe.model_dump(mode="json")
    refuse_change(folder, loaded, lines)
    # What is missing, and all data problems, come first, before the backbone takes its time to load; and of these
    # nothing is read that the runs to come do not need.
    to_come = unfinished(trials, lines)
    sources_read, targets_read = rows_needed(loaded, to_come)
    _refuse_missing_libraries(to_come, [rows.task for rows in (*sources_read, *targets_read)])
    refuse_bad_rows(sources_read, targets_read)
    refuse_other_rows(targets_read, lines, loaded.recipe.evaluate.rows)
    note_recipe(folder, loaded, lines)

    def results() -> Results:
        return Results(loaded.recipe.name, tuple(lines), recipe)

    def tell(title: str) -> None:
        left = unfinished(trials, lines)
        seconds = _seconds_left(left, lines, sources)
        watch(Standing(len(trials) - len(left), len(trials), title, seconds, standing_table(results())))

    sources = Sources(loaded, folder, tell)
    sources.refuse_unfit({trial.name: trial.contender for trial in to_come}.values())
    for trial in to_come:
        sources.prepare(trial.contender, trial.seed)
        tell(trial.title)
        of_trial = _timed_lines(trial, sources, lines)
        done = {line.key for line in lines}  # of a group some lines may stand already
        new = [line for line in of_trial if line.key not in done]
        add_results(folder, new)
        lines += new
        give_back()
    tell("")
    if (begun := sources.first_multitask) is not None:
        write_file(folder / SIMILARITY, json.dumps(similarities(begun, folder, lines)))
    named = dict(zip(loaded.recipe.multitask, loaded.multitask, strict=True))
    write_file(folder / SOURCES, "".join(json.dumps(source) + "\n" for source in of_sources(folder, named)))
    write_file(folder / TABLE, results_page(results(), _describe(loaded)))
    return folder


def _refuse_missing_libraries(trials: Sequence[Trial], scored: Sequence[Task]) -> None:
    """Raise MissingExtraError where a method, or a metric of a task that is scored, needs what is not installed."""
    methods = [trial.contender.method for trial in trials]
    for part, extra, library in dict.fromkeys(method.extra for method in methods if method.extra is not None):
        if find_spec(library) is None:
            raise MissingExtraError(part, extra)
    require_libraries([metric for task in scored for metric in task.metrics])


def _seconds_left(trials: Sequence[Trial], lines: Sequence[Line], sources: Sources) -> float | None:
    """Return what runs will take, as finished ones of the same method and shots did, with what they begin with.

    None where nothing of a kind is finished yet, and so nothing tells: a run of another method may take a hundredth.
    """
    contenders = sources.loaded.contenders
    spent: dict[tuple[str, int | None], list[float]] = {}
    for line in lines:
        contender = contenders.get("from-sources" if line.method.startswith(FROM) else line.method)
        if contender is not None and line.seconds is not None:  # lines of earlier versions lack some fields
            spent.setdefault((contender.name, line.shots), []).append(line.seconds / contender.tried(line.seed))
    known = [
        (len(trial.targets) * trial.contender.tried(trial.seed), spent.get((trial.contender.name, trial.shots), []))
        for trial in trials
    ]
    pending: dict[Kind, set[Path]] = {}
    for contender in {trial.contender.name: trial.contender for trial in trials}.values():
        for kind, folders in sources.pending(contender).items():
            pending.setdefault(kind, set()).update(folders)
    known += [(len(folders), sources.spent.get(kind, [])) for kind, folders in pending.items() if folders]
    if not all(seconds for _, seconds in known):
        return None
    return sum(count * sum(seconds) / len(seconds) for count, seconds in known)


def _timed_lines(trial: Trial, sources: Sources, lines: Sequence[Line]) -> list[Line]:
    """Return the lines of one run, with its circumstances."""
    started = time.monotonic()
    of_trial = _outcome(trial, sources, lines)
    seconds = round((time.monotonic() - started) / len(of_trial), 1)
    about = circumstances(sources.backbone(trial.contender.settings))
    return [line.model_copy(update={"seconds": seconds, **about}) for line in of_trial]


def _outcome(trial: Trial, sources: Sources, lines: Sequence[Line]) -> list[Line]:
    """Return the lines of one run, one for each of its tasks, without its circumstances."""
    rate, systems = _at_its_rate(trial, sources, lines)
    evaluate = trial.contender.settings.evaluate
    of_trial = []
    for rows, system in zip(trial.targets, systems, strict=True):
        examples, texts = system.answer(rows, "test", evaluate, sources.read)
        known: dict[str, Any] = {} if rate is None else {"lr": rate}
        if system.backbone is not None:
            known |= {
                "trainings": trainings(system.cards),
                "evaluate": evaluate.model_dump(mode="json"),
                "backbone": of_backbone(system.backbone),
            }
        line = Line(
            method=trial.name,
            task=rows.name,
            shots=trial.shots,
            seed=trial.seed,
            scores=score(_with_macro_f1(rows.task), "test", examples, texts),
            credit=_credit(rows.task, examples, texts),
            confusion=confusion(rows.task, examples, texts),
            test_rows=rows_digest(examples),
            parameters=Parameters(trained=system.trained, stored=system.stored),
            curve=system.metrics,
            **known,
            **system.chosen,
        )
        of_trial.append(line)
    return of_trial


def _at_its_rate(trial: Trial, sources: Sources, lines: Sequence[Line]) -> tuple[float | None, Sequence[System]]:
    """Return a run's learning rate and what it made.

    Of several rates it is that with the best validation score for the first seed of a task and number of shots; None
    where the recipe has nothing to try.
    """
    rates, train = trial.contender.rates, trial.contender.method.function
    if len(rates) > 1:
        alike = (trial.name, trial.tasks[0], trial.shots)
        rates = next(((line.lr,) for line in lines if line.lr is not None and line.key[:3] == alike), rates)
    if len(rates) < 2:
        rate = rates[0] if rates else None
        return rate, train(trial.at(rate, sources.folder), sources)
    best: tuple[float, float] | None = None
    of_best: Sequence[System] = ()
    for rate in rates:
        systems = train(trial.at(rate, sources.folder), sources)  # runs of the first seed come first
        value = _mean_score(trial, systems, "validation", sources)
        if best is None or (value, rate) > best:
            best, of_best = (value, rate), systems
    assert best is not None
    return best[1], of_best


def _mean_score(trial: Trial, systems: Sequence[System], split: Split, sources: Sources) -> float:
    """Return the mean over tasks of the first metric, on the rows by which rates are compared."""
    rows_compared = {"rows": sources.loaded.recipe.tuning_rows}
    config = trial.contender.settings.evaluate.model_copy(update=rows_compared)
    values = [
        score(rows.task, split, *system.answer(rows, split, config, sources.read))[0].value
        for rows, system in zip(trial.targets, systems, strict=True)
    ]
    return sum(values) / len(values)


def _with_macro_f1(task: Task) -> Task:
    """Return a task that is judged by macro-F1 too: unlike accuracy, it does not reward a constant answer."""
    more = () if BALANCED in task.metrics or not task.verbalizer else (BALANCED,)
    return task.model_copy(update={"metrics": (*task.metrics, *more)})


def _credit(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> list[float] | None:
    """Return each row's share of the score, to four places; None where rows have none."""
    each = credits(task, examples, answers)
    return None if each is None else [round(credit, 4) for credit in each]


def _beginning(loaded: Loaded) -> str:
    """Return what the comparison begins with."""
    if loaded.multitask:
        named = [f"{name} ({', '.join(task.name for task in prompt.tasks)})"
                 for name, prompt in zip(loaded.recipe.multitask, loaded.multitask, strict=True)]  # fmt: skip
        return f"Multitask prompt, trained before: {'; '.join(named)}."
    return f"Source tasks: {', '.join(Path(s).stem for s in loaded.recipe.sources) or 'none'}."


def _describe(loaded: Loaded) -> Sequence[str]:
    recipe = loaded.recipe
    length = recipe.section("prompt_tuning").model_dump()["prompt_length"]  # where no stage makes another prompt
    if loaded.multitask or recipe.sources:
        length = loaded.multitask[0].prompt_length if loaded.multitask else recipe.teach.prompt_length
    tried = "; ".join(f"{m}: {', '.join(f'{lr:g}' for lr in lrs)}" for m, lrs in recipe.rates.items())
    return (
        f"Backbone: {recipe.backbone.name}, weights in {recipe.backbone.dtype}.",
        _beginning(loaded),
        f"Prompt length {length}; adaptation {recipe.adapt.steps} steps; "
        f"prompt tuning {recipe.section('prompt_tuning').model_dump()['steps']} steps; "
        f"learning rates tried: {tried or 'none'}.",
        f"Versions: {', '.join(f'{k} {v}' for k, v in versions().items())}; threads {torch.get_num_threads()}.",
    )
