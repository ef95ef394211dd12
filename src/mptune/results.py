"""A folder of results: the names of its files, what a line holds, and reading and adding lines."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError

from mptune.errors import ResultsError
from mptune.files import parsed, write_file

RESULTS = "results.jsonl"  # a line for each run and task
TABLE = "results.md"
RECIPE = "recipe.json"
SIMILARITY = "similarity.json"  # cosines between the tasks' prompts
SOURCES = "sources.jsonl"  # a line for each teacher and multitask prompt that runs began with
FILES = (RESULTS, TABLE, RECIPE, SIMILARITY, SOURCES)
MULTITASK = "multitask"  # folder of the multitask prompt by the recipe's own settings; others have a hash behind it
TEACHERS = "teachers"  # folder of its teachers, likewise

FROM = "from:"  # and a source task: its own prompt, unadapted, on a target; `from-sources` of a recipe stands for these

M = TypeVar("M", bound=BaseModel)


class Read(BaseModel):
    """A part of a file; fields that this version does not know are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)


class Score(Read):
    """One metric of one run on the test rows."""

    metric: str
    value: FiniteFloat  # 0..100; Matthews from -100
    examples: int | None = None


class Parameters(Read):
    """How many numbers a run changes, and how many it must keep for its task."""

    trained: int
    stored: int


class Point(Read):
    """A validation during training. Null where nothing was validated at that step."""

    step: int
    validation: float | None = None  # 0..100
    validation_loss: float | None = None  # nats per label token


class Line(Read):
    """One finished run."""

    method: str
    task: str
    shots: int | None  # labelled examples per class; 0: no example of the target is used; None: all training rows
    seed: int
    scores: tuple[Score, ...] = Field(min_length=1)
    credit: tuple[FiniteFloat, ...] | None = Field(None, min_length=1)  # 0..1 per test row, in the rows' order
    parameters: Parameters | None = None
    curve: Annotated[tuple[Point, ...], BeforeValidator(lambda found: found or ())] = ()
    seconds: FiniteFloat | None = None
    dtype: str | None = None
    versions: dict[str, str | None] = {}
    commit: str | None = None
    machine: str | None = None

    def value(self, metric: str | None = None) -> float | None:
        """Return the score of a metric, of the first without a name; None where the line lacks it."""
        return next((s.value for s in self.scores if metric in (None, s.metric)), None)


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of finished runs, none where there are none; a last line that was cut does not count.

    Raises:
        ResultsError: every line that is damaged or stands there twice.
    """
    problems: list[str] = []
    file = folder / RESULTS
    lines = [values for values, _ in read_lines(file, problems)] if file.is_file() else []
    if problems:
        raise ResultsError(
            f"{folder} cannot be added to; mend or remove the lines, whose runs are done again:", problems
        )
    return lines


def add_results(folder: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Add the lines of one run, all or none."""
    file = folder / RESULTS
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    whole, newline, last = before.rpartition("\n")
    before = whole + newline
    if last and not _cut(last):
        before += last + "\n"
    write_file(file, before + "".join(json.dumps(line) + "\n" for line in lines))


def read_lines(file: Path, problems: list[str]) -> list[tuple[dict[str, Any], Line]]:
    """Return each line of results.jsonl, as it stands there and checked; what is wrong goes to ``problems``."""
    lines: list[tuple[dict[str, Any], Line]] = []
    first: dict[tuple[str, str, int | None, int], int] = {}
    rows: dict[str, tuple[int, int]] = {}
    raw = _text(file, problems).split("\n")
    for number, one in enumerate(raw, start=1):
        where = f"{file.name} line {number}"
        if not one.strip():
            continue
        try:
            values = parsed(one)
        except ValueError as error:
            if number < len(raw):
                problems.append(f"{where} is not JSON ({error}): {one[:60]!r}")
            continue
        line = read_model(Line, values, where, problems)
        if line is None:
            continue
        before = first.setdefault((line.method, line.task, line.shots, line.seed), number)
        if before != number:
            problems.append(f"{where} repeats the run of line {before}; keep one of them")
        if line.credit:
            count, elsewhere = rows.setdefault(line.task, (len(line.credit), number))
            if count != len(line.credit):
                problems.append(
                    f"{where} has the credit of {len(line.credit)} test rows of {line.task}, line {elsewhere} of "
                    f"{count}; runs are compared on the same rows"
                )
        lines.append((values, line))
    return lines


def read_object(file: Path, problems: list[str]) -> dict[str, Any]:
    """Return the JSON object of a file, an empty one where there is no file; what is wrong goes to ``problems``."""
    if not file.is_file():
        return {}
    try:
        values = parsed(_text(file, problems) or "{}")
    except ValueError as error:
        problems.append(f"{file.name} is not JSON: {error}")
        return {}
    if not isinstance(values, dict):
        problems.append(f"{file.name} wants a JSON object; got {str(values)[:60]!r}")
        return {}
    return values


def read_model(model: type[M], values: Any, where: str, problems: list[str]) -> M | None:
    """Return values as a model; None where they are none of it, and what is wrong goes to ``problems``."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        for problem in error.errors():
            place = ".".join(map(str, problem["loc"]))
            problems.append(f"{where}: {place + ': ' if place else ''}{problem['msg']}; got {problem['input']!r:.60}")
        return None


def _cut(line: str) -> bool:
    """Whether a last line is half a line, as a kill of an earlier version left it."""
    try:
        parsed(line)
    except ValueError:
        return True
    return False


def _text(file: Path, problems: list[str]) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{file.name} cannot be read: {getattr(error, 'strerror', None) or error}")
        return ""
