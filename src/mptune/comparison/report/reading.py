"""A folder of results as values: results.jsonl, recipe.json, similarity.json; and the published tables.

Knows nothing of pages and charts. What is missing is None or empty; what is damaged is said all at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any, Literal

from pydantic import FiniteFloat

from mptune.comparison.results import (
    FROM,
    RECIPE,
    RESULTS,
    SIMILARITY,
    FilePart,
    Line,
    read_lines,
    read_model,
    read_object,
)
from mptune.errors import MissingResults, ResultsError
from mptune.files import read_yaml

MPT = "mpt"
Matrix = Sequence[Sequence[float | None]]


class SimilarTask(FilePart):
    """A row and a column of the similarities."""

    name: str
    role: Literal["source", "target"] | None = None


class Similarity(FilePart):
    """Cosines between tasks; null where a task has no prompt or no matrix. [tasks, tasks]"""

    tasks: tuple[SimilarTask, ...]
    prompts: tuple[tuple[FiniteFloat | None, ...], ...] | None = None
    matrices: tuple[tuple[FiniteFloat | None, ...], ...] | None = None


@dataclass(frozen=True)
class Results:
    """Everything that a folder of results says."""

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
        return sorted({line.shots for line in self.lines} - {0}, key=lambda k: (k is None, k)) or [0]

    @cached_property
    def _by_cell(self) -> dict[tuple[str, str, int | None], list[Line]]:
        cells: dict[tuple[str, str, int | None], list[Line]] = {}
        for line in self.lines:
            cells.setdefault((line.method, line.task, line.shots), []).append(line)
        return cells

    @cached_property
    def _by_task(self) -> dict[str, list[Line]]:
        tasks: dict[str, list[Line]] = {}
        for line in self.lines:
            if not line.method.startswith(FROM):
                tasks.setdefault(line.task, []).append(line)
        return tasks

    def of(self, method: str, task: str, shots: int | None) -> list[Line]:
        """Return a method's runs on a task; one without target examples counts for every number of shots."""
        return [line for k in dict.fromkeys((0, shots)) for line in self._by_cell.get((method, task, k), ())]

    def on(self, task: str) -> list[Line]:
        """Return the runs on a task, but for source tasks' own prompts."""
        return self._by_task.get(task, [])


def read_folder(folder: Path) -> Results:
    """Return what a folder of results says.

    Raises:
        ResultsError: there are no results, or a file of them is damaged; a last line that was cut does not count.
    """
    if not folder.is_dir():
        raise MissingResults(f"there is no folder {folder}; name the one that `mptune bench` wrote")
    file = folder / RESULTS
    if not file.is_file():
        raise MissingResults(f"{folder} holds no {RESULTS}; name the folder that `mptune bench` wrote")
    problems: list[str] = []
    lines = read_lines(file, problems)
    recipe = read_object(folder / RECIPE, problems)
    similarity = _similarity(folder / SIMILARITY, problems)
    if problems:
        raise ResultsError(f"{folder} cannot be reported on; mend or remove what is damaged:", problems)
    if not lines:
        raise ResultsError(f"{file} holds no finished run; the command that began it goes on where it stopped")
    name = recipe.get("name")
    return Results(name if isinstance(name, str) else folder.resolve().name, tuple(lines), recipe, similarity)


def read_published() -> Sequence[Mapping[str, Any]]:
    """Return the published tables, every number as the text that stands in published.yaml."""
    with_texts = read_yaml(Path(str(files("mptune.comparison.report") / "published.yaml")))
    return list(with_texts["tables"])


def names(tasks: Any) -> list[str]:
    """Return the names in a recipe's list or mapping; a file's is its stem, as its task is called."""
    listed = list(tasks) if isinstance(tasks, list | dict) else []
    return [PurePath(str(name)).stem if str(name).endswith((".yaml", ".yml")) else str(name) for name in listed]


def _similarity(file: Path, problems: list[str]) -> Similarity | None:
    values = read_object(file, problems)
    similarity = read_model(Similarity, values, file.name, problems) if values else None
    if similarity is not None:
        size = len(similarity.tasks)
        for name, matrix in (("prompts", similarity.prompts), ("matrices", similarity.matrices)):
            if matrix is not None and [len(row) for row in matrix] != [size] * size:
                problems.append(f"{file.name}: {name} wants {size} rows of {size} cosines, one for each task")
    return similarity
