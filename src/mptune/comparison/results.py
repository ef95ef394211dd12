"""A folder of results: the names of its files, what a line holds, and reading and adding lines."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
)

from mptune.answers.metrics import Score
from mptune.config import LARGEST_SCORE
from mptune.errors import ResultsError, reason
from mptune.files import json_lines, parsed, write_file

RESULTS = "results.jsonl"  # a line for each run and task
TABLE = "results.md"
RECIPE = "recipe.json"
SIMILARITY = "similarity.json"  # cosines between the tasks' prompts
SOURCES = "sources.jsonl"  # a line for each teacher and multitask prompt that runs began with
FILES = (RESULTS, TABLE, RECIPE, SIMILARITY, SOURCES)
MULTITASK = "multitask"  # folder of the multitask prompt by the recipe's own settings; others have a hash behind it
TEACHERS = "teachers"  # folder of its teachers, likewise

FROM = "from:"  # and a source task: its own prompt, unadapted, on a target; `from-sources` of a recipe stands for these
BALANCED = "f1_macro"  # judges class labels beside a task's own metrics: a constant answer does not win it

M = TypeVar("M", bound=BaseModel)
Key = tuple[str, str, int | None, int]


class FilePart(BaseModel):
    """A part of a file; fields that this version does not know are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)


class Parameters(FilePart):
    """How many numbers a run changes, and how many it must keep for its task."""

    trained: int
    stored: int


class Point(FilePart):
    """What was logged at a step of training. Null where it was not asked for at that step."""

    step: int
    loss: float | None = None  # of the batch
    validation: float | None = None  # 0..100
    validation_loss: float | None = None  # nats per label token


class TrainingRecord(FilePart):
    """One stage that a run rests on: its settings as they were resolved, and its rows."""

    stage: str
    config: dict[str, Any]
    data: dict[str, str]  # task name to hash of its rows as they were rendered
    shot_rows: dict[str, list[int]] = {}  # task name to the numbers of the drawn rows
    stopped: int | None = None  # the step whose numbers were not finite; the best state before it was taken


class Line(FilePart):
    """One finished run on one task. The fields stand in a file's order; those that a run does not set are left out."""

    model_config = ConfigDict(extra="allow")  # what a method found on its way is kept, whatever it is

    method: str
    task: str
    shots: int | None  # labelled examples per class; 0: no example of the target is used; None: all training rows
    seed: int
    lr: FiniteFloat | None = None  # the best of several that were tried
    source: str | None = None  # the source task that was chosen
    answer: str | None = None  # of the constant predictor
    scores: tuple[Score, ...] = Field(min_length=1)
    credit: tuple[FiniteFloat, ...] | None = Field(None, min_length=1)  # 0..1 per test row, in the rows' order
    # Test rows by class and answer, in the verbalizer's order; the last column is text that is no label. [C, C + 1]
    confusion: tuple[tuple[int, ...], ...] | None = None
    test_rows: str | None = None  # hash
    parameters: Parameters | None = None
    curve: Annotated[tuple[Point, ...], BeforeValidator(lambda points: points or ())] = ()
    trainings: tuple[TrainingRecord, ...] = ()
    evaluate: dict[str, Any] | None = None
    backbone: dict[str, str | None] | None = None
    seconds: FiniteFloat | None = None
    dtype: str | None = None
    machine: str | None = None
    versions: dict[str, str | None] = {}
    commit: str | None = None

    @field_validator("scores", mode="before")
    @classmethod
    def _say_of_what(cls, scores: Any, info: ValidationInfo) -> Any:
        """Fill in what a score of a line may leave out: its task, its split and its number of rows."""
        if not isinstance(scores, list | tuple):
            return scores
        least = {"task": info.data.get("task"), "split": "test", "examples": 0}
        return [least | {k: v for k, v in s.items() if v is not None} if isinstance(s, dict) else s for s in scores]

    @field_validator("scores")
    @classmethod
    def _are_of_a_size(cls, scores: tuple[Score, ...]) -> tuple[Score, ...]:
        if not all(abs(score.value) < LARGEST_SCORE for score in scores):
            raise ValueError("value wants a number of its metric's scale")
        return scores

    @field_serializer("credit")
    def _shortest(self, credit: tuple[float, ...] | None) -> list[float] | None:
        """Return wholes as 0 and 1, which most are."""
        return None if credit is None else [int(c) if c in (0, 1) else c for c in credit]

    @property
    def key(self) -> Key:
        """What no two lines of a folder have in common."""
        return (self.method, self.task, self.shots, self.seed)

    def value(self, metric: str | None = None) -> float | None:
        """Return the score of a metric, of the first without a name; None where the line lacks it."""
        return next((s.value for s in self.scores if metric in (None, s.metric)), None)

    def json_text(self) -> str:
        """Return the line as it stands in a file."""
        return json.dumps(self.model_dump(exclude_unset=True))


def read_results(folder: Path) -> list[Line]:
    """Return the lines of finished runs, none where there are none; a last line that was cut does not count.

    Raises:
        ResultsError: every line that is damaged or stands there twice.
    """
    problems: list[str] = []
    file = folder / RESULTS
    lines = read_lines(file, problems) if file.is_file() else []
    if problems:
        raise ResultsError(
            f"{folder} cannot be added to; mend or remove the lines, whose runs are done again:", problems
        )
    return lines


def add_results(folder: Path, lines: Sequence[Line]) -> None:
    """Add the lines of one run, all or none."""
    file = folder / RESULTS
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    whole, newline, last = before.rpartition("\n")
    before = whole + newline
    if last and not _cut(last):
        before += last + "\n"
    write_file(file, before + "".join(line.json_text() + "\n" for line in lines))


def read_lines(file: Path, problems: list[str]) -> list[Line]:
    """Return the lines of results.jsonl; what is wrong goes to ``problems``."""
    lines: list[Line] = []
    first: dict[Key, int] = {}
    rows: dict[str, tuple[int, int]] = {}
    text = _text(file, problems)
    for read in json_lines(text):
        number, values = read.number, read.value
        where = f"{file.name} line {number}"
        if read.error is not None:
            if number <= text.count("\n"):
                problems.append(f"{where} is not JSON ({read.error}): {read.text[:60]!r}")
            continue
        line = read_model(Line, values, where, problems)
        if line is None:
            continue
        before = first.setdefault(line.key, number)
        if before != number:
            problems.append(f"{where} repeats the run of line {before}; keep one of them")
        if line.credit:
            count, elsewhere = rows.setdefault(line.task, (len(line.credit), number))
            if count != len(line.credit):
                problems.append(
                    f"{where} has the credit of {len(line.credit)} test rows of {line.task}, line {elsewhere} of "
                    f"{count}; runs are compared on the same rows"
                )
        lines.append(line)
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
        problems.append(f"{file.name} cannot be read: {reason(error)}")
        return ""
