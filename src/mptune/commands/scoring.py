"""How good a prompt is, and how sure of it one may be: evaluate, calibrate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from mptune.commands.options import (
    AtLeastOption,
    BackboneOption,
    DataOption,
    FolderArgument,
    Number,
    SetOption,
    Text,
    configured,
    load,
    minima,
    named_tasks,
    names,
    number,
    open_prompt,
    option,
    share,
)
from mptune.errors import ShortfallError, UnknownNameError, UsageError, one_of
from mptune.terminal import say, say_json, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mptune import MultitaskPrompt, Score, TaskRows
    from mptune.answers.calibration import Calibrated
    from mptune.answers.classes import ClassScore

MOST_LABELS = 12  # whose answers are shown by label


def evaluate_prompt(
    prompt: Annotated[
        # By name, here and in `predict`: typer 0.27 takes a metavar of the same letters for the option itself.
        Text,
        option("Prompt, folder of prompts, or hub repository; the bare backbone without it.", "PROMPT", "--prompt"),
    ] = None,
    task: Annotated[Text, option("Tasks to score; the prompt's without it.", "NAMES")] = None,
    split: Annotated[str, option("validation, test or train.")] = "validation",
    classes: Annotated[bool, option("Recall, precision and answers of each label too.", name="--classes")] = False,
    at_least: AtLeastOption = None,
    as_json: Annotated[bool, option("One JSON object per score.", name="--json")] = False,
    backbone: BackboneOption = None,
    data: DataOption = None,
    settings: SetOption = None,
) -> None:  # fmt: skip
    """Score a prompt, or every prompt of a folder, on a split of its task."""
    from mptune import EvaluateConfig
    from mptune.prompts.stored import prompt_folders
    from mptune.tasks.task import SPLITS

    part, wanted = one_of("split", split, SPLITS), minima(at_least)
    if prompt is None and task is None:
        raise UsageError("evaluate wants --prompt, or --task to score the bare backbone; got neither")
    config, changes = configured(EvaluateConfig, "evaluate", settings)
    chosen = named_tasks(task, "--task")
    places: list[str | None] = [prompt]
    if prompt and Path(prompt).is_dir():
        places = list(map(str, prompt_folders(prompt)))
    loaded = [open_prompt(place) if place else None for place in places]
    from mptune.answers.evaluation import evaluate_classes
    from mptune.prompts.folder import rows_of

    read = [rows_of([Path(place)] if place else [], chosen, data) for place in places]
    _refuse_unknown(wanted, loaded, read)
    model = load(backbone, changes, loaded[0], places[0])
    found = [
        Scored(Path(place or "").name, rows.name, *evaluate_classes(one, rows, model, part, config))
        for place, one, of_prompt in zip(places, loaded, read, strict=True)
        for rows in of_prompt
    ]
    say_scores = _say_json if as_json else _say_tables
    say_scores(found, len(places) > 1, part if classes else None)
    _refuse_low(wanted, found, len(places) > 1)


def _refuse_unknown(
    wanted: "Mapping[str, float]",
    prompts: "Sequence[MultitaskPrompt | None]",
    read: "Sequence[Sequence[TaskRows]]",
) -> None:
    """Raise UnknownNameError, before anything is answered, for a metric that no score will be of."""
    from mptune.answers.evaluation import COVERAGE, PRECISION

    known = dict.fromkeys(metric for of_prompt in read for rows in of_prompt for metric in rows.task.metrics)
    found = [each for one in prompts if one for each in (one.card.calibration or {}).values()]
    known |= dict.fromkeys([COVERAGE, PRECISION] if any(each.threshold is not None for each in found) else [])
    for metric in wanted:
        if not metric.startswith(tuple(f"{each}_" for each in known)):  # of a subset of the rows
            one_of("metric of these scores", metric, known)


def _refuse_low(wanted: "Mapping[str, float]", found: "Sequence[Scored]", several: bool) -> None:
    """Raise ShortfallError where scores are below those that were asked for."""
    scores = [(f"{each.prompt}, " if several else "", score) for each in found for score in each.scores]
    low = []
    for metric, least in wanted.items():
        of_metric = [(place, score) for place, score in scores if score.metric == metric]
        if not of_metric:
            raise UnknownNameError("metric of these scores", metric, {score.metric for _, score in scores})
        low += [f"{place}{s.task}: {metric} {s.value:.2f} on {s.examples} {s.split} rows, and {least:g} was asked for"
                for place, s in of_metric if s.value < least]  # fmt: skip
    if low:
        raise ShortfallError("\n  - ".join(["below --at-least:", *low]) if low[1:] else f"below --at-least: {low[0]}")


class Scored(NamedTuple):
    """What a prompt of some name scored on one task."""

    prompt: str
    task: str
    scores: "Sequence[Score]"
    labels: "Sequence[ClassScore]"


def _say_json(found: "Sequence[Scored]", several: bool, split: str | None) -> None:
    """Print scores as JSON; those of labels too, where their split is named."""
    for each in found:
        of = {"prompt": each.prompt} if several else {}
        for score in each.scores:
            say_json({**of, **score.as_dict()})
        for label in each.labels if split else ():
            say_json({**of, "task": each.task, "split": split, **label.as_dict()})


def _say_tables(found: "Sequence[Scored]", several: bool, split: str | None) -> None:
    """Print scores as a table; then one of the labels of each task, where their split is named."""
    head = ["prompt", "task", "split", "metric", "score", "examples"]
    lines = [[each.prompt, s.task, s.split, s.metric, f"{s.value:.1f}", s.examples]
             for each in found for s in each.scores]  # fmt: skip
    first = 0 if several else 1
    table(head[first:], [line[first:] for line in lines])
    for each in found if split else ():
        _say_classes(f"{each.prompt} {each.task}" if several else each.task, each.labels)


def _say_classes(task: str, labels: "Sequence[ClassScore]") -> None:
    """Print recall, precision and rows of each label, and of few labels what their rows were given."""
    words = [label.word for label in labels]
    shown = [*words, "no label"] if len(words) <= MOST_LABELS else []
    table([task, "recall", "precision", "rows", *(f"given {word}" for word in shown)],
          [[label.word, *("–" if share is None else f"{share:.1f}" for share in (label.recall, label.precision)),
            label.rows, *label.given[: len(shown)]] for label in labels])  # fmt: skip


def calibrate_prompt(
    prompt: FolderArgument,
    task: Annotated[
        Text, option("Tasks of the prompt; those with label words whose rows are there without it.", "NAMES")
    ] = None,
    split: Annotated[str, option("validation or test.")] = "validation",
    rows: Annotated[Number, number("At most so many rows of each task, the first of a seeded shuffle.", ge=1)] = None,
    precision: Annotated[float, share("Share of right answers that the threshold is to give.")] = 0.95,
    as_json: Annotated[bool, option("One JSON object per task.", name="--json")] = False,
    backbone: BackboneOption = None,
    data: DataOption = None,
    settings: SetOption = None,
) -> None:
    """Find a temperature and a threshold on held-out rows: how sure an answer is, and from where on it is right.

    Both go into the prompt's card, and `predict` and `evaluate` use them.
    """
    from mptune import EvaluateConfig
    from mptune.prompts.stored import writable_folder

    config, changes = configured(EvaluateConfig, "evaluate", settings, rows=rows)
    given, loaded = names(task, "--task"), open_prompt(prompt)
    folder = writable_folder(prompt)
    from mptune.answers.calibration import HELD_OUT, calibrate, held_out_rows
    from mptune.prompts.folder import rows_of_tasks, write_calibration

    part = one_of("split of held-out rows", split, HELD_OUT)
    read = rows_of_tasks(folder, given, data)
    chosen, passed = held_out_rows(loaded, read, part, config, named=bool(given))
    for why in passed:
        say(f"passed over: {why}", err=True)
    found = calibrate(loaded, chosen, load(backbone, changes, loaded, prompt), part, precision, config)
    write_calibration(folder, {each.task: each.calibration for each in found})
    if as_json:
        for each in found:
            say_json(each.as_dict())
    else:
        _say_calibrated(found)
    for each in found:
        for remark in each.remarks():
            say(remark, err=True)
    say(f"Written to the card of {prompt}", err=True)


def _say_calibrated(found: "Sequence[Calibrated]") -> None:
    """Print temperatures and thresholds, then what both halves of the rows say of each threshold."""
    table(["task", "split", "rows", "temperature", "error before", "error after", "threshold", "for precision"],
          [[each.task, each.calibration.split, each.calibration.rows, f"{each.calibration.temperature:g}",
            f"{each.error_before:.3f}", f"{each.error_after:.3f}", _or_none(each.calibration.threshold),
            f"{each.calibration.precision:g}"] for each in found])  # fmt: skip
    halves = [(each, name, half) for each in found
              for name, half in (("chosen", each.choosing), ("confirmed", each.confirming)) if half]  # fmt: skip
    if halves:
        table(["task", "threshold", "on", "answered", "coverage", "precision", "at least"],
              [[each.task, f"{_or_none(each.threshold)} {name}", f"{half.rows} rows", half.answered,
                f"{half.coverage:.3f}", f"{half.precision:.3f}", f"{half.at_least:.3f}"]
               for each, name, half in halves])  # fmt: skip


def _or_none(threshold: float | None) -> str:
    return "none" if threshold is None else f"{threshold:g}"
