"""A run's folder as values: results.jsonl, recipe.json, similarity.json; and the published tables.

Knows nothing of pages and charts. What is missing is None or empty; what is damaged is said all at once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError

from mptune.errors import ResultsError
from mptune.results import RECIPE, RESULTS, SIMILARITY
from mptune.tasks.yaml import read_yaml

MPT = "mpt"

M = TypeVar("M", bound=BaseModel)


class _Read(BaseModel):
    """A part of a file; fields that this version does not know are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)


class Score(_Read):
    """One metric of one run on the test rows."""

    metric: str
    value: FiniteFloat  # 0..100; Matthews from -100
    examples: int | None = None


class Parameters(_Read):
    """How many numbers a run changes, and how many it must keep for its task."""

    trained: int
    stored: int


class Point(_Read):
    """A validation during training. Null where nothing was validated at that step."""

    step: int
    validation: float | None = None  # 0..100
    validation_loss: float | None = None  # nats per label token


class Line(_Read):
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


class SimilarTask(_Read):
    """A row and a column of the similarities."""

    name: str
    role: Literal["source", "target"] | None = None


class Similarity(_Read):
    """Cosines between tasks; null where a task has no prompt or no matrix. [tasks, tasks]"""

    tasks: tuple[SimilarTask, ...]
    prompts: tuple[tuple[FiniteFloat | None, ...], ...] | None = None
    matrices: tuple[tuple[FiniteFloat | None, ...], ...] | None = None


@dataclass(frozen=True)
class Run:
    """Everything that a run's folder says."""

    name: str
    lines: tuple[Line, ...]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    similarity: Similarity | None = None

    @cached_property
    def tasks(self) -> list[str]:
        """The target tasks that have results, in the recipe's order."""
        seen = dict.fromkeys(line.task for line in self.lines)
        order = [name.partition("@")[0] for name in names(self.recipe.get("targets"))]  # rte@paper is the task rte
        return list(dict.fromkeys([*(t for t in order if t in seen), *seen]))

    @cached_property
    def methods(self) -> list[str]:
        """The methods that have results, in the recipe's order, its variants after them."""
        seen = dict.fromkeys(line.method for line in self.lines)
        order = [*names(self.recipe.get("methods")), *names(self.recipe.get("variants"))]
        return list(dict.fromkeys([*(m for m in order if m in seen), *seen]))

    @cached_property
    def shots(self) -> list[int | None]:
        """The numbers of shots, growing, all training rows last; [0] where no method learns from target examples."""
        found = {line.shots for line in self.lines} - {0}
        return sorted(found, key=lambda k: (k is None, k)) or [0]

    @cached_property
    def _by_cell(self) -> dict[tuple[str, str], list[Line]]:
        cells: dict[tuple[str, str], list[Line]] = {}
        for line in self.lines:
            cells.setdefault((line.method, line.task), []).append(line)
        return cells

    def of(self, method: str, task: str, shots: int | None) -> list[Line]:
        """Return a method's runs on a task; one without target examples counts for every number of shots."""
        return [line for line in self._by_cell.get((method, task), []) if line.shots in (0, shots)]


def read_run(folder: Path) -> Run:
    """Return what a run's folder says.

    Raises:
        ResultsError: there are no results, or a file of them is damaged; a last line that was cut does not count.
    """
    if not folder.is_dir():
        raise ResultsError(f"there is no folder {folder}; name the one that `mptune bench` wrote")
    file = folder / RESULTS
    if not file.is_file():
        raise ResultsError(f"{folder} holds no {RESULTS}; name the folder that `mptune bench` wrote")
    problems: list[str] = []
    lines = _lines(file, problems)
    recipe = _object(folder / RECIPE, problems)
    similarity = _similarity(folder / SIMILARITY, problems)
    if problems:
        raise ResultsError(f"{folder} cannot be reported on; mend or remove what is damaged:", problems)
    if not lines:
        raise ResultsError(f"{file} holds no finished run; the command that began it goes on where it stopped")
    name = recipe.get("name")
    return Run(name if isinstance(name, str) else folder.resolve().name, tuple(lines), recipe, similarity)


def read_published() -> Sequence[Mapping[str, Any]]:
    """Return the published tables, every number as the text that stands in published.yaml."""
    with_texts = read_yaml(Path(str(files("mptune.reports") / "published.yaml")))
    return list(with_texts["tables"])


def names(tasks: Any) -> list[str]:
    """Return the names in a recipe's list or mapping; a file's is its stem, as its task is called."""
    listed = list(tasks) if isinstance(tasks, list | dict) else []
    return [PurePath(str(name)).stem if str(name).endswith((".yaml", ".yml")) else str(name) for name in listed]


def _lines(file: Path, problems: list[str]) -> list[Line]:
    text = _text(file, problems)
    lines: list[Line] = []
    first: dict[tuple[str, str, int | None, int], int] = {}
    rows: dict[str, tuple[int, int]] = {}
    raw = text.splitlines()
    for number, one in enumerate(raw, start=1):
        where = f"{file.name} line {number}"
        if not one.strip():
            continue
        try:
            values = json.loads(one)
        except ValueError:
            if number < len(raw) or text.endswith("\n"):
                problems.append(f"{where} is not JSON: {one[:60]!r}")
            continue
        line = _model(Line, values, where, problems)
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
        lines.append(line)
    return lines


def _similarity(file: Path, problems: list[str]) -> Similarity | None:
    values = _object(file, problems)
    found = _model(Similarity, values, file.name, problems) if values else None
    if found is not None:
        size = len(found.tasks)
        for name, matrix in (("prompts", found.prompts), ("matrices", found.matrices)):
            if matrix is not None and [len(row) for row in matrix] != [size] * size:
                problems.append(f"{file.name}: {name} wants {size} rows of {size} cosines, one for each task")
    return found


def _object(file: Path, problems: list[str]) -> dict[str, Any]:
    """Return the JSON object of a file, an empty one where there is no file."""
    if not file.is_file():
        return {}
    try:
        values = json.loads(_text(file, problems) or "{}")
    except ValueError as error:
        problems.append(f"{file.name} is not JSON: {error}")
        return {}
    if not isinstance(values, dict):
        problems.append(f"{file.name} wants a JSON object; got {str(values)[:60]!r}")
        return {}
    return values


def _model(model: type[M], values: Any, where: str, problems: list[str]) -> M | None:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        for problem in error.errors():
            place = ".".join(map(str, problem["loc"]))
            problems.append(f"{where}: {place + ': ' if place else ''}{problem['msg']}; got {problem['input']!r:.60}")
        return None


def _text(file: Path, problems: list[str]) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{file.name} cannot be read: {getattr(error, 'strerror', None) or error}")
        return ""
