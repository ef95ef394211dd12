"""The examples of a task: its rows read once, checked, rendered, divided and drawn."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import torch

from mptune.errors import DataError, UsageError
from mptune.files import digest
from mptune.tasks.cells import CellError
from mptune.tasks.dataset import IN_MEMORY, Dataset
from mptune.tasks.examples import kept, rendered
from mptune.tasks.guess import Table, guess_rows
from mptune.tasks.memory import numbered, rows_in_memory
from mptune.tasks.rows import NumberedRows, read_rows, sources_of, unlabelled_sources
from mptune.tasks.splits import (
    TEST_SHARE,
    VALIDATION_SHARE,
    check_overlap,
    gathered,
    halves,
    hold_out,
    hold_out_of_each,
    normal,
    to_train_on,
    unseen,
)
from mptune.tasks.task import SPLITS, Example, Split, Task, there
from mptune.terminal import warn_once

HOW_READ = {"where", "train_rows", "without_label", "overlap"}  # of a task's dataset, whatever its rows come from


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
        return digest(json.dumps(rows))


@dataclass(frozen=True)
class ReadSplit:
    """The examples of one split as its files hold them, before any rule divides them."""

    examples: tuple[Example, ...]
    place: str  # names of its files, or the hub's
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Division:
    """How a task's rows become its splits."""

    sources: dict[str, list[str]]  # what each split is read from
    wanted: frozenset[str]  # the splits that are asked for, and those that they are taken from
    halved: bool  # half of the test rows are the validation rows
    held_out: tuple[Split, ...]  # what is taken from the training rows, in this order

    def has(self, split: Split) -> bool:
        """Return whether a split has rows of its own, or training rows to be taken from."""
        return split in self.sources or (split in self.held_out and "train" in self.sources)


@dataclass(eq=False)  # two readers are two, and each may be a key
class TaskRows:
    """The rows of one task. Each split is read when it is first needed, and not again.

    ``data_dir`` is where a hub task's rows are read instead, from files named ``<task>.<split>.jsonl[.gz]``.
    """

    task: Task
    data_dir: Path | None = None
    doubted: bool = True  # whether what is odd about its labels is worth a line: somebody gave them
    _given: Mapping[str, NumberedRows] = field(default_factory=dict)  # by split, those that a program holds
    _read: dict[str, ReadSplit] = field(default_factory=dict)
    _divided: dict[tuple[Split, ...], TaskData] = field(default_factory=dict)
    _unlabelled: tuple[Example, ...] | None = None

    @classmethod
    def of(cls, task: "Task | TaskRows", data_dir: Path | None = None) -> "TaskRows":
        """Return the rows of a task; themselves where they are given."""
        return task if isinstance(task, TaskRows) else cls(task, data_dir)

    @classmethod
    def checked(cls, tasks: "Sequence[Task]", data_dir: Path | None = None) -> "tuple[TaskRows, ...]":
        """Return the rows of tasks that are to be trained on, all of them read before anything is trained.

        Raises:
            DataError: rows that do not fit their task.
        """
        read = tuple(cls(task, data_dir) for task in tasks)
        for rows in read:
            rows.data("train", "validation")
        return read

    @classmethod
    def from_rows(
        cls,
        train: Any,
        task: Task | None = None,
        *,
        text: str | Sequence[str] = (),
        label: str | None = None,
        name: str = "mine",
        validation: Any = None,
        test: Any = None,
        unlabelled: Any = None,
        hold_out: bool = True,
        overlap: Literal["refuse", "drop", "keep"] | None = None,
    ) -> "TaskRows":
        """Return a task with rows that a program holds, to use wherever a task is taken.

        Each of the four is a pandas DataFrame, a ``datasets.Dataset`` or a list of ``{column: value}``.
        Without ``test`` and ``validation``, a fifth and a tenth of every class are held out for them, by a fixed seed.

        Args:
            task: how the rows are read; guessed from the columns of ``train`` where None, as `mptune init` does.
            text: the column or columns that are read, to guess; the one with the longest texts without it.
            label: the column of the labels, to guess; the one that can be no other without it.
            name: of the guessed task.
            unlabelled: rows of the task that nobody has labelled.
            hold_out: whether rows are, where there is neither ``test`` nor ``validation``; else all are to train on.
            overlap: what becomes of training rows that stand in another split too; as the task says where None.

        Raises:
            UsageError: what is no table; no such column, or several that could be the label.
            DataError: fewer than two labels; every labelled row that does not fit the task.
        """
        tables = {"train": train, "validation": validation, "test": test, "unlabelled": unlabelled}
        if train is None and not (task and tables["test"] is not None):
            raise UsageError("train wants rows: a DataFrame, a Dataset or a list of {field: value}; got None")
        given = {
            split: numbered(rows_in_memory(rows, split), split) for split, rows in tables.items() if rows is not None
        }
        dataset: dict[str, Any] = dict.fromkeys(given, IN_MEMORY) | ({"overlap": overlap} if overlap else {})
        if hold_out and not given.keys() & {"validation", "test"}:
            dataset["split"] = "held-out"
        if task is None:
            texts = (text,) if isinstance(text, str) else tuple(map(str, text))
            guess = guess_rows(
                Table([row for _, row in given["train"]], "train", '{}="COLUMN"', held=True),
                name,
                texts,
                None if label is None else str(label),
                dataset,
            )
            for said in guess.said:
                warn_once(f"{name}: {said}")
            task = guess.task
        else:
            how = task.dataset.model_dump(include=HOW_READ) if task.dataset else {}
            task = task.model_copy(update={"dataset": Dataset.read({**how, **dataset}, f"the rows of {task.name}")})
        return cls(task, _given=given)._whole()

    @classmethod
    def of_examples(cls, task: Task, **splits: Sequence[Example]) -> "TaskRows":
        """Return a task with rows that are rendered already, by split; ``unlabelled`` is one of them."""
        dataset = Dataset.read({"train": IN_MEMORY, **dict.fromkeys(splits, IN_MEMORY)}, f"the rows of {task.name}")
        read = {split: ReadSplit(tuple(examples), split, ()) for split, examples in splits.items()}
        unlabelled = read.pop("unlabelled").examples if "unlabelled" in read else None
        given: dict[str, NumberedRows] = {split: [] for split in splits}
        with_rows = task.model_copy(update={"dataset": dataset})
        return cls(with_rows, doubted=False, _given=given, _read=read, _unlabelled=unlabelled)

    def _whole(self) -> Self:
        """Return these rows, whose program is told at once what is wrong with the labelled ones.

        Raises:
            DataError: every row that does not fit the task.
        """
        labelled = [split for split in SPLITS if self._given.get(split)]
        if problems := [each for split in labelled for each in self._split(split, [IN_MEMORY]).problems]:
            raise DataError(self.task.name, problems)
        return self

    def __repr__(self) -> str:
        words = ", ".join(self.task.label_words) or "free text"
        counts = [f"{len(rows)} {split}" for split, rows in self._given.items()]
        return f"TaskRows({self.name}: {'; '.join([words, *counts])})"

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task.name

    @property
    def task_to_save(self) -> Task:
        """The task as a later command on this machine needs it: with the place of its rows, where they have one."""
        return self.task.without_paths() if self._given else self.task

    def data(self, *splits: Split) -> TaskData:
        """Return the examples of the splits that were asked for.

        Training rows are compared with the validation and test rows, whether or not those are asked for. What may be
        held out is as `sources_of` and the task's ``split`` say; where no validation rows are asked for, none are.

        Raises:
            DataError: every problem of every split at once, with file and row.
        """
        if splits not in self._divided:
            self._divided[splits] = self._divide(splits)
        return self._divided[splits]

    def unlabelled(self) -> tuple[Example, ...]:
        """Return the rows without labels, read once; none where the task names none.

        Raises:
            DataError: every problem at once, with file and row.
        """
        if self._unlabelled is None:
            self._unlabelled = self._read_unlabelled()
        return self._unlabelled

    def _read_unlabelled(self) -> tuple[Example, ...]:
        problems: list[str] = []
        examples: dict[str, Example] = {}  # by text: what stands twice says nothing more
        for source in unlabelled_sources(self.task, self.data_dir):
            rows, place = self._numbered("unlabelled", source, problems)
            for number, row in kept(self.task, rows, place, problems):
                try:
                    example = self.task.unlabelled(row, number)
                    examples.setdefault(normal(example.input), example)
                except CellError as error:
                    problems.append(f"{place} row {number}: {error}")
                except LookupError as error:
                    (said, *_) = [
                        *self.task.absent(row, self.task.text_fields),
                        f"no field {error}; it has {there(row)}",
                    ]
                    problems.append(f"{place} row {number}: {said}")
        if problems:
            raise DataError(self.task.name, problems)
        return tuple(examples.values())

    def _divide(self, asked: tuple[Split, ...]) -> TaskData:
        if self.task.dataset is None:
            raise DataError(
                self.task.name, ["its card carries no data; name the task with --task FILE.yaml or a built-in name"]
            )
        division = self._division(asked)
        problems: list[str] = []
        examples, places = self._examples(division, problems)
        any_training = bool(examples.get("train"))
        if self.task.dataset.overlap != "keep":
            check_overlap(self.task, examples, places, problems)
        if division.halved and "test" in examples:
            examples["validation"], examples["test"] = halves(examples["test"])
        whole = examples.get("train", [])
        if self.task.dataset.split == "held-out" and any_training:
            self._hold_out_of_each(examples)
        else:
            for split in division.held_out:
                if examples.get("train"):
                    examples["train"], examples[split] = hold_out(self.task, examples["train"])
        if self.doubted:
            self._say_unseen(whole, {split: examples[split] for split in division.held_out if split in examples})
        if any_training and "train" in asked and not examples["train"]:
            problems.append(f"{places['train']} has no row left to train on: all are kept for validation or test")
        for split in asked:
            if split not in examples and not division.has(split):
                problems.append(f"it has no {split} split; name its file under dataset: {split}:")
        if problems:
            raise DataError(self.task.name, problems)
        examples["train"] = to_train_on(self.task, examples.get("train", []))
        if self.task.gather:
            examples |= {split: gathered(examples[split]) for split in ("validation", "test") if split in examples}
        return TaskData(self.task, **{split: tuple(examples.get(split, [])) for split in asked})

    def _hold_out_of_each(self, examples: dict[str, list[Example]]) -> None:
        """Take test and validation rows from the training rows, the same whatever is asked for, and say how many."""
        train, test = hold_out_of_each(examples["train"], TEST_SHARE)
        train, validation = hold_out_of_each(train, VALIDATION_SHARE)
        examples |= {"train": train, "validation": validation, "test": test}
        warn_once(
            f"{self.name}: {len(train)} rows are to train on; held out of every class, {len(test)} to test and "
            f"{len(validation)} to validate"
        )

    def _say_unseen(self, whole: Sequence[Example], held: Mapping[Split, Sequence[Example]]) -> None:
        """Say which labels have no row in what was held out of the training rows."""
        for said in unseen(self.task, whole, held):
            warn_once(f"{self.name}: {said}")

    def _division(self, asked: tuple[Split, ...]) -> Division:
        """Return which splits are read, and which are taken from others, so that there are those that are asked for."""
        dataset, sources = self.task.dataset, sources_of(self.task, self.data_dir)
        assert dataset is not None
        if dataset.split == "held-out":
            return Division(sources, frozenset({"train"}), False, ("test", "validation"))
        halved = dataset.split == "halves" and "test" in sources
        held_out: list[Split] = ["test"] if dataset.test and "test" not in sources else []
        if "validation" in asked and "validation" not in sources and not halved:
            held_out.append("validation")
        wanted: set[str] = set(asked)
        if held_out and wanted & {"validation", "test"}:
            wanted.add("train")
        if halved and "validation" in wanted:
            wanted.add("test")
        return Division(sources, frozenset(wanted), halved, tuple(held_out))

    def _examples(self, division: Division, problems: list[str]) -> tuple[dict[str, list[Example]], dict[str, str]]:
        """Return the examples of every split that is read, and the name of its place."""
        assert self.task.dataset is not None
        examples: dict[str, list[Example]] = {}
        places: dict[str, str] = {}
        for split in SPLITS:
            if split in division.sources and division.wanted & {"train", split}:
                read = self._split(split, division.sources[split])
                examples[split], places[split] = list(read.examples), read.place
                # A hub task's test rows may be secret, or not at hand; who asked for none is not stopped by that.
                if split in division.wanted or not self.task.dataset.hub:
                    problems += read.problems
        return examples, places

    def _numbered(self, split: str, source: str, problems: list[str]) -> tuple[NumberedRows, str]:
        """Return the rows of one source of a split, and how the place is called."""
        if self._given:
            return self._given[split], split
        return read_rows(self.task, split, source, self.data_dir, problems)

    def _split(self, split: str, sources: list[str]) -> ReadSplit:
        """Return a split's examples that ``where`` keeps, read once."""
        if split not in self._read:
            problems: list[str] = []
            examples: list[Example] = []
            places: list[str] = []
            for source in sources:
                rows, place = self._numbered(split, source, problems)
                places.append(place)
                examples += rendered(self.task, kept(self.task, rows, place, problems), place, problems)
            self._read[split] = ReadSplit(tuple(examples), ", ".join(places), tuple(problems))
        return self._read[split]


def load_data(task: Task, splits: Sequence[Split], data_dir: Path | None = None) -> TaskData:
    """Return the examples of some splits of a task, as `TaskRows.data` does."""
    return TaskRows(task, data_dir).data(*splits)


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
