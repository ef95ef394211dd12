"""Rows of a task's files or hub data set, checked, rendered and drawn. The one file that touches `datasets`."""

import hashlib
import json
import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mptune.errors import DataError
from mptune.tasks import Example, Split, Task, label_key

logger = logging.getLogger(__name__)

HELD_OUT = 1_000  # validation rows taken from training data without a validation split: Raffel et al. 2020
HELD_OUT_SHARE = 10  # ... but at most every tenth row
FORMATS = {"jsonl": "json", "json": "json", "csv": "csv", "parquet": "parquet"}


@dataclass(frozen=True)
class TaskData:
    """The rendered examples of one task; a split that was not asked for, or does not exist, is empty."""

    task: Task
    train: tuple[Example, ...] = ()
    validation: tuple[Example, ...] = ()
    test: tuple[Example, ...] = ()

    @property
    def digest(self) -> str:
        """A hash of everything that was rendered: the data's identity in cards and resumed runs."""
        rows = [[e.input, e.target] for split in (self.train, self.validation, self.test) for e in split]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:32]


def load_data(task: Task, splits: Sequence[Split], data_dir: Path | None = None) -> TaskData:
    """Return the examples of the splits that were asked for.

    Args:
        data_dir: where a hub task's rows are read instead, from files named ``<task>.<split>.jsonl[.gz]``.

    Raises:
        DataError: every problem of every split at once, with file and row.
    """
    if task.dataset is None:
        raise DataError(task.name, ["its card carries no data; name the task with --task FILE.yaml or a built-in name"])
    problems: list[str] = []
    wanted = set(splits)
    found: dict[str, list[Example]] = {}
    places: dict[str, str] = {}
    for split in ("train", "validation", "test"):
        if getattr(task.dataset, split) and (split in wanted or (split == "train" and "validation" in wanted)):
            rows, places[split] = _rows(task, split, data_dir, problems)
            found[split] = _rendered(task, rows, places[split], problems)
    if "validation" in wanted and not task.dataset.validation and found.get("train"):
        found["train"], found["validation"] = _hold_out(found["train"])
        places["validation"] = places["train"]
    for split in splits:
        if split not in found:
            problems.append(f"it has no {split} split; name its file under dataset: {split}:")
    if not problems:
        _check_overlap(task, found, places, problems)
    if problems:
        raise DataError(task.name, problems)
    return TaskData(task, **{split: tuple(found[split]) for split in splits})


def draw_shots(examples: Sequence[Example], shots: int | None, seed: int) -> tuple[Example, ...]:
    """Return ``shots`` examples of every class (in all, for free text), drawn by the seed; all of them for None."""
    if shots is None:
        return tuple(examples)
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed)).tolist()
    drawn: dict[str | None, list[Example]] = {}
    for i in order:
        group = drawn.setdefault(examples[i].label, [])
        if len(group) < shots:
            group.append(examples[i])
    return tuple(sorted((e for group in drawn.values() for e in group), key=lambda e: e.row))


def draw_rows(examples: Sequence[Example], count: int, seed: int) -> tuple[Example, ...]:
    """Return at most ``count`` examples, drawn by the seed, in their order."""
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed)).tolist()
    return tuple(examples[i] for i in sorted(order[:count]))


def _rows(task: Task, split: str, data_dir: Path | None, problems: list[str]) -> tuple[list[dict[str, Any]], str]:
    """Return a split's rows, and what its problems are said of: the file's name, or the hub's."""
    import datasets

    datasets.disable_progress_bars()
    assert task.dataset is not None
    source, hub = str(getattr(task.dataset, split)), task.dataset.hub
    if hub is not None and data_dir is not None:
        files = [
            data_dir / f"{task.name}.{name}.jsonl{gz}" for name in (source, source.partition("_")[0]) for gz in ("", ".gz")
        ]
        file = next((f for f in files if f.is_file()), None)
        if file is None:
            problems.append(f"{data_dir.name}/ has no {files[0].name}[.gz] for its {split} split")
            return [], files[0].name
        source = str(file)
    elif hub is not None:
        place = "/".join(filter(None, (hub.path, hub.name, source)))
        try:
            loaded = datasets.load_dataset(hub.path, hub.name, revision=hub.revision, split=source)
        except Exception as error:
            # The hub's client raises whatever its transport raises; each means that the rows are not to be had.
            problems.append(
                f"{place} cannot be loaded from the hub ({_first_line(error)}). Check name and network, "
                f"or give --data DIR with {task.name}.{source}.jsonl"
            )
            return [], place
        return _selected(loaded, task, place, problems), place
    path = Path(source)
    ending = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if not path.is_file():
        problems.append(f"{path.name} ({split}) does not exist in {path.parent.name or '.'}/")
        return [], path.name
    if ending not in FORMATS:
        problems.append(f"{path.name} ({split}) is none of {', '.join(FORMATS)}, .gz allowed")
        return [], path.name
    try:
        if path.stat().st_size == 0:
            return _selected([], task, path.name, problems), path.name
        loaded = datasets.load_dataset(FORMATS[ending], data_files=str(path), split="train")
    except Exception as error:  # pyarrow, pandas and json each raise their own; all mean that the file is not readable
        problems.append(f"{path.name} ({split}) cannot be read as {FORMATS[ending]}: {_first_line(error.__cause__ or error)}")
        return [], path.name
    return _selected(loaded, task, path.name, problems), path.name


def _selected(loaded: Any, task: Task, place: str, problems: list[str]) -> list[dict[str, Any]]:
    """Return the rows that the task's ``where`` keeps, each with its number in the file."""
    assert task.dataset is not None
    where = task.dataset.where
    rows = [{**row, _ROW: n} for n, row in enumerate(loaded, start=1)]
    kept = [row for row in rows if all(label_key(row.get(column)) == value for column, value in where.items())]
    if not kept:
        chosen = " where " + ", ".join(f"{c} is {v}" for c, v in where.items()) if where and rows else ""
        problems.append(f"{place} has no rows{chosen}")
    return kept


_ROW = "\0row"  # no data file has a column of this name


def _rendered(task: Task, rows: list[dict[str, Any]], place: str, problems: list[str]) -> list[Example]:
    examples = []
    for row in rows:
        number = row[_ROW]
        missing = [f for f in task.fields if row.get(f) is None]
        if missing:
            there = ", ".join(k for k, v in row.items() if k != _ROW and v is not None)
            problems.append(f"{place} row {number}: no {', '.join(missing)}; it has {there or 'nothing'}")
            continue
        if task.verbalizer and label_key(row[task.label]) not in task.verbalizer:
            problems.append(
                f"{place} row {number}: the label {row[task.label]!r} is not in the verbalizer "
                f"({', '.join(task.verbalizer)})"
            )
            continue
        try:
            examples.append(task.render(row, number))
        except (LookupError, TypeError, ValueError) as error:
            problems.append(f"{place} row {number}: {error} is missing or empty")
    return examples


def _hold_out(train: list[Example]) -> tuple[list[Example], list[Example]]:
    """Return training rows without, and the, validation rows that stand in for a missing split."""
    count = max(1, min(HELD_OUT, len(train) // HELD_OUT_SHARE))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(42)).tolist()
    held = [train[i] for i in sorted(order[:count])]
    texts = {_normal(e.input) for e in held}  # a repeated row must not end on both sides
    return [e for e in train if _normal(e.input) not in texts], held


def _check_overlap(task: Task, found: dict[str, list[Example]], places: dict[str, str], problems: list[str]) -> None:
    """Report training inputs that stand in another split too, or drop them where the task says so."""
    assert task.dataset is not None
    for split in ("validation", "test"):
        if "train" not in found or split not in found:
            continue
        seen = {_normal(e.input): e.row for e in found[split]}
        shared = [e for e in found["train"] if _normal(e.input) in seen]
        if not shared:
            continue
        if task.dataset.overlap == "drop":
            logger.warning(
                "%s: %d training rows stand in %s too and are left out", task.name, len(shared), places[split]
            )
            rows = {e.row for e in shared}
            found["train"] = [e for e in found["train"] if e.row not in rows]
        else:
            problems.extend(
                f"{places['train']} row {e.row} stands in {places[split]} too, row {seen[_normal(e.input)]} "
                "(`overlap: drop` under dataset leaves such rows out of training)"
                for e in shared
            )


def _normal(text: str) -> str:
    return " ".join(text.lower().split())


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def stable_seed(*parts: object) -> int:
    """Return a seed that depends on all parts and, unlike hash(), on nothing else."""
    return zlib.crc32(repr(parts).encode())

