"""Rows of a task's files or hub data set, checked, rendered and drawn. The one file that touches `datasets`."""

import csv
import gzip
import hashlib
import io
import json
import logging
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from mptune.errors import DataError
from mptune.files import parsed
from mptune.splits import gathered, halves, hold_out, normal, to_train_on
from mptune.tasks import SPLITS, Example, HubData, Split, Task, label_key

logger = logging.getLogger(__name__)

FORMATS = ("jsonl", "json", "csv", "parquet")

Rows = list[tuple[int, dict[str, Any]]]  # each with its number: the line of a jsonl file, else counted from 1


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
        rows = [[[e.input, e.target] for e in split] for split in (self.train, self.validation, self.test)]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:32]


def load_data(task: Task, splits: Sequence[Split], data_dir: Path | None = None) -> TaskData:
    """Return the examples of the splits that were asked for.

    Training rows are compared with the validation and test rows, whether or not those are asked for. What may be held
    out is as `_sources` and the task's ``split`` say.

    Args:
        data_dir: where a hub task's rows are read instead, from files named ``<task>.<split>.jsonl[.gz]``.

    Raises:
        DataError: every problem of every split at once, with file and row.
    """
    if task.dataset is None:
        raise DataError(task.name, ["its card carries no data; name the task with --task FILE.yaml or a built-in name"])
    dataset = task.dataset
    sources = _sources(task, data_dir)
    halved = dataset.split == "halves" and "test" in sources
    held_out: list[Split] = []  # of the training rows, in this order
    if dataset.test and "test" not in sources:
        held_out.append("test")
    if "validation" in splits and "validation" not in sources and not halved:
        held_out.append("validation")
    wanted: set[str] = set(splits)
    if held_out and wanted & {"validation", "test"}:
        wanted.add("train")
    if halved and "validation" in wanted:
        wanted.add("test")
    problems: list[str] = []
    found: dict[str, list[Example]] = {}
    places: dict[str, str] = {}
    for split in SPLITS:
        if split not in sources or not ("train" in wanted or split in wanted):
            continue
        # A hub task's test rows may be secret, or not at hand; who asked for none is not stopped by that.
        said = [] if dataset.hub and split not in wanted else problems
        found[split], places[split] = _read(task, split, sources[split], data_dir, said)
    some = bool(found.get("train"))
    if dataset.overlap != "keep":
        _check_overlap(task, found, places, problems)
    if halved and "test" in found:
        found["validation"], found["test"] = halves(found["test"])
    for split in held_out:
        if found.get("train"):
            found["train"], found[split] = hold_out(task, found["train"])
    if some and "train" in splits and not found["train"]:
        problems.append(f"{places['train']} has no row left to train on: all are kept for validation or test")
    for split in splits:
        if split not in found and split not in sources and not (split in held_out and "train" in sources):
            problems.append(f"it has no {split} split; name its file under dataset: {split}:")
    if problems:
        raise DataError(task.name, problems)
    found["train"] = to_train_on(task, found.get("train", []))
    if task.gather:
        found |= {split: gathered(found[split]) for split in ("validation", "test") if split in found}
    return TaskData(task, **{split: tuple(found.get(split, [])) for split in splits})


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


def _sources(task: Task, data_dir: Path | None) -> dict[str, list[str]]:
    """Return what each split is read from: its name on the hub, or its files; a split that is held out has none.

    A folder with local rows of a hub task may lack some of them. Where it has no test rows, its validation rows are
    the test rows, as is usual where test labels are secret; where it has none of either, test rows are held out too.
    """
    assert task.dataset is not None
    named = {split: name for split in SPLITS if (name := getattr(task.dataset, split))}
    if data_dir is None or task.dataset.hub is None:
        return {split: [name] for split, name in named.items()}
    found: dict[str, list[str]] = {}
    for split in ("train", "test", "validation"):  # one file serves one split, and the test split first
        files = _local_files(task, named[split], data_dir) if split in named else []
        if files and files not in found.values():
            found[split] = files
    if "test" in named and "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
        _warn_once(f"{task.name}: there are no test rows in {data_dir.name}/; the validation rows are tested")
    elif "test" in named and "test" not in found and "train" in found:
        _warn_once(f"{task.name}: there are only training rows in {data_dir.name}/; some are held out")
    missing = ("train", "test") if "train" not in found else ()
    for split in missing:
        if split in named and split not in found:
            found[split] = [str(data_dir / f"{task.name}.{named[split]}.jsonl")]  # said to be missing when it is read
    return found


def _local_files(task: Task, split: str, folder: Path) -> list[str]:
    """Return the files in which a hub task's split lies.

    One file serves splits like validation_matched, and several files, as test_seen and test_unseen, make one split.
    """
    for name in (split, split.partition("_")[0], f"{split}_*"):
        for gz in ("", ".gz"):
            if files := sorted(folder.glob(f"{task.name}.{name}.jsonl{gz}")):
                return [str(file) for file in files]
    return []


def _read(
    task: Task, split: str, sources: list[str], data_dir: Path | None, problems: list[str]
) -> tuple[list[Example], str]:
    """Return a split's examples that ``where`` keeps, and what is said of their place: names of files, or the hub's."""
    assert task.dataset is not None
    hub, where = task.dataset.hub, task.dataset.where
    said = len(problems)
    examples: list[Example] = []
    places: list[str] = []
    rows: Rows = []
    for source in sources:
        if hub is not None and data_dir is None:
            places.append("/".join(filter(None, (hub.path, hub.name or hub.folder, source))))
            rows = _hub_rows(task, hub, source, places[-1], problems)
        else:
            places.append(Path(source).name)
            rows = _file_rows(Path(source), split, problems)
        kept = [(n, row) for n, row in rows if all(label_key(row.get(c)) == value for c, value in where.items())]
        if not kept and len(problems) == said:
            chosen = " where " + ", ".join(f"{c} is {v}" for c, v in where.items()) if where and rows else ""
            problems.append(f"{places[-1]} has no rows{chosen}")
        examples += _rendered(task, kept, places[-1], problems)
    return examples, ", ".join(places)


def _hub_rows(task: Task, hub: HubData, split: str, place: str, problems: list[str]) -> Rows:
    import datasets

    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(hub.path, hub.name, data_dir=hub.folder, revision=hub.revision, split=split)
    except Exception as error:
        # The hub's client raises whatever its transport raises; each means that the rows are not to be had.
        problems.append(
            f"{place} cannot be loaded from the hub ({_first_line(error)}). Check name and network, "
            f"or give --data DIR with {task.name}.{split}.jsonl"
        )
        return []
    return list(enumerate(loaded, start=1))


def _file_rows(path: Path, split: str, problems: list[str]) -> Rows:
    """Return the rows of a file, and report those that cannot be read.

    Text stays the text of the file: readers of tables take "None" for nothing, "007" for 7 and "2024-01-02" for a date.
    """
    ending = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if not path.is_file():
        problems.append(f"{path.name} ({split}) does not exist in {path.parent.name or '.'}/")
    elif ending not in FORMATS:
        problems.append(f"{path.name} ({split}) is none of {', '.join(FORMATS)}, .gz allowed")
    else:
        try:
            return list(_parquet_rows(path) if ending == "parquet" else _text_rows(path, ending, problems))
        except (OSError, EOFError, ValueError, zlib.error, csv.Error) as error:
            problems.append(f"{path.name} ({split}) cannot be read as {ending}: {_first_line(error)}")
    return []


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    from pyarrow import parquet  # type: ignore[import-untyped] # datasets refuses a parquet file without rows

    with path.open("rb") as file:  # of a path, pyarrow would read folder names like fold=1 as columns
        return enumerate(parquet.read_table(file).to_pylist(), start=1)


def _text_rows(path: Path, ending: str, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        text = file.read()
    rows: Iterable[tuple[int, Any]]
    if ending == "csv":
        rows = enumerate(csv.DictReader(io.StringIO(text, newline=""), strict=True), start=1)
    elif ending == "json" and text.lstrip().startswith("["):
        rows = enumerate(parsed(text), start=1)
    else:
        rows = _json_lines(text, path.name, problems)
    for number, row in rows:
        if not isinstance(row, dict):
            problems.append(f"{path.name} row {number}: wants {{field: value}}; got {json.dumps(row)[:40]}")
        elif None in row:
            problems.append(f"{path.name} row {number} has more cells than the header; quote a text that has commas")
        else:
            yield number, row


def _json_lines(text: str, name: str, problems: list[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            if line.strip():
                yield number, parsed(line)
        except json.JSONDecodeError as error:
            problems.append(f"{name} row {number} is no JSON: {error.msg}, column {error.colno}")
        except ValueError as error:
            problems.append(f"{name} row {number}: {error}")


def _rendered(task: Task, rows: Rows, place: str, problems: list[str]) -> list[Example]:
    assert task.dataset is not None
    examples = []
    for number, row in rows:
        try:
            ready = task.prepared(row)
        except LookupError as error:
            problems.append(f"{place} row {number}: {error.args[0]} is missing or empty")
            continue
        # Public data have a few blank texts, which their users cannot mend; in a file of one's own it is a slip.
        missing = [f for f in task.fields if ready.get(f) is None or (not task.dataset.hub and _blank(ready[f]))]
        if missing:
            there = ", ".join(k for k, v in row.items() if v is not None and not _blank(v))
            problems.append(f"{place} row {number}: no {', '.join(missing)}; it has {there or 'nothing'}")
            continue
        if task.verbalizer and label_key(ready[task.label]) not in task.verbalizer:
            problems.append(
                f"{place} row {number}: the label {ready[task.label]!r} is not in the verbalizer "
                f"({', '.join(task.verbalizer)})"
            )
            continue
        try:
            examples.append(task.render_prepared(ready, number))
        except LookupError as error:
            if not task.gather:  # other rows of this input may have right answers; in public test sets some have none
                problems.append(f"{place} row {number}: {error.args[0]} is missing or empty")
    return examples


def _blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _check_overlap(task: Task, found: dict[str, list[Example]], places: dict[str, str], problems: list[str]) -> None:
    """Report training inputs that stand in another split too, or drop them where the task says so."""
    assert task.dataset is not None
    for split in ("validation", "test"):
        if "train" not in found or split not in found:
            continue
        seen = {normal(e.input): e.row for e in found[split]}
        shared = [e for e in found["train"] if normal(e.input) in seen]
        if not shared:
            continue
        if task.dataset.overlap == "drop":
            _warn_once(f"{task.name}: {len(shared)} training rows stand in {places[split]} too and are left out")
            found["train"] = [e for e in found["train"] if normal(e.input) not in seen]
        else:
            problems.extend(
                f"{places['train']} row {e.row} stands in {places[split]} too, row {seen[normal(e.input)]} "
                "(`overlap: drop` under dataset leaves such rows out of training)"
                for e in shared
            )


@cache
def _warn_once(message: str) -> None:
    """Warn of what a task's data are; a comparison reads them many times."""
    logger.warning(message)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
