"""Where the rows of a task are: files or a hub data set, and how they become its splits."""

import codecs
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from mptune.config import Config
from mptune.tasks.cells import label_key

IN_MEMORY = "in memory"  # for the name of a file, where a program holds the rows


class HubData(Config):
    """A data set on the Hugging Face hub."""

    path: str
    """Repository, as ``nyu-mll/glue``."""
    name: str | None = None
    """Configuration within it, as ``sst2``."""
    revision: str | None = None
    """Commit, tag or branch; the newest where none is named."""
    folder: str | None = None
    """Folder within it, where that stands for the configuration, as in the branch ``refs/convert/parquet``."""


class Dataset(Config):
    """Where the rows of a task are: files, or a hub data set."""

    train: str | None = None
    """File (json, jsonl, csv, tsv, txt, .gz too; xlsx, parquet), or the split's name on the hub."""
    validation: str | None = None
    """As ``train``; where absent, a seeded tenth of the training rows, at most 1,000."""
    test: str | None = None
    """As ``train``; only `evaluate --split test` needs it."""
    unlabelled: str | None = None
    """As ``train``, but no label is read: rows of the task that nobody has labelled, as many as can be had. An
    adaptation lets teachers answer them, and learns from that too."""
    hub: HubData | None = None
    """The hub data set whose splits the three fields name."""
    split: Literal["own", "halves", "held-out"] = "own"
    """``held-out``: of the training rows a fifth of every class is the test split and a tenth the validation split,
    by a fixed seed, whatever is asked for. ``halves``: what ``test`` names is shuffled with seed 42, and its
    first half is the validation split. The rule of earlier prompt tuning papers for small data sets whose test
    labels are secret."""
    train_rows: int | None = Field(None, ge=1)
    """At most so many training rows, the first, counted after validation rows were held out; all where absent."""
    without_label: Literal["refuse", "skip"] = "refuse"
    """Rows whose label is empty: an error, or passed over, as in a table that is labelled in part."""
    encoding: str | None = None
    """Of csv, tsv and txt files without a mark, as ``cp1251``. Where absent, UTF-8, UTF-16, else cp1252."""
    delimiter: str | None = Field(None, min_length=1, max_length=1)
    """Between cells of csv and txt files; where absent, the one of comma, semicolon, tab and bar that suits them."""
    sheet: str | None = None
    """Of xlsx files, the sheet that is read; the first where absent."""
    overlap: Literal["refuse", "drop", "keep"] = "refuse"
    """Training rows that stand in the validation or test split too: an error, left out of training, or left in."""
    where: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Only rows whose columns have these values, or one of several, as ``{task: reviews}`` or ``{label: [a, b]}``: one
    file may hold many tasks."""

    @field_validator("where", mode="before")
    @classmethod
    def _wanted_values_are_text(cls, where: Any) -> Any:
        if not isinstance(where, Mapping):
            return where
        listed = {str(c): v if isinstance(v, list | tuple) else (v,) for c, v in where.items()}
        return {column: tuple(map(label_key, values)) for column, values in listed.items()}

    @field_validator("encoding")
    @classmethod
    def _encoding_exists(cls, encoding: str | None) -> str | None:
        try:
            if encoding is not None:
                codecs.lookup(encoding)
        except (LookupError, ValueError):
            raise ValueError(f"is no encoding that Python knows, as utf-8 or cp1252; got {encoding!r}") from None
        return encoding

    @model_validator(mode="after")
    def _some_rows(self) -> Self:
        if not (self.train or self.validation or self.test):
            raise ValueError("dataset names no split; give at least one of train, validation, test")
        if self.split == "held-out" and (self.validation or self.test or not self.train):
            raise ValueError("split: held-out takes all rows from train, and wants no validation and no test")
        if self.split == "halves" and (self.validation or not self.test):
            raise ValueError("split: halves wants the rows to divide in test, and no validation")
        return self
