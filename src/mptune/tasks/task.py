"""A task is a value: a data set, a template, a verbalizer. Adding one is adding a row or a YAML file."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from mptune.config import Config
from mptune.files import beside
from mptune.tasks.cells import CellError, column_name, is_blank, is_missing, label_key, meant, text_cell
from mptune.tasks.dataset import Dataset
from mptune.tasks.prepare import PREPARE, Row
from mptune.tasks.templates import fields, is_field, pieces

METRICS = (
    "accuracy", "f1", "f1_macro", "matthews", "exact_match", "squad_f1", "group_exact_match", "pearson", "spearman",
    "bleu", "chrf", "ter", "nist", "meteor", "rouge_l", "cider",
)  # fmt: skip
_OF_CLASSES = ("f1", "f1_macro", "matthews")
_OF_TEXT = tuple(m for m in METRICS if m not in _OF_CLASSES)
SMALLER_IS_BETTER = ("ter",)
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
ChatPlace = Literal["user", "system", "first"]  # of a prompt in a chat template; drawn in `mptune.model.chat`


def _switched(chat: Any) -> Any:
    """Return what `true` and `false` mean, as a YAML file's words are read, which may be labels."""
    switch = {"true": "user", "false": None}
    return switch.get(str(chat).lower(), chat)


Switch = Annotated[ChatPlace | None, BeforeValidator(_switched)]  # as it is written in a file


class Span(NamedTuple):
    """Where a field of the template stands in a rendered text."""

    field: str
    start: int
    end: int


@dataclass(frozen=True)
class Example:
    """One row of a task, rendered."""

    task: str
    row: int  # number in its file: the line of a jsonl file, else the row, from 1
    input: str
    target: str
    label: str | None  # the verbalizer's key; None for free text
    references: tuple[str, ...]  # all right answers
    group: str | None = None  # what rows are judged together; None where each stands alone
    subset: str | None = None  # the part of the rows that is scored apart too
    spans: tuple[Span, ...] = field(default=(), compare=False)  # what may be cut of the input: the row's own texts


PROTOCOLS = ("recommended", "paper")


class Task(Config):
    """A data set cast as text-to-text: the template writes the input, the verbalizer the label."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Letters, digits, ``_``, ``-`` and ``.``."""
    dataset: Dataset | None = None
    """Where the rows are; absent in a prompt's card, which does not carry its author's paths."""
    template: str
    """Text of the input with ``{fields}`` of the row; ``{answers[text]}`` reaches into a nested field."""
    verbalizer: dict[str, str] = Field(default_factory=dict)
    """Label value to label word; absent for free text."""
    relabel: dict[str, str] = Field(default_factory=dict)
    """Label value to the one that is meant, as typing errors have it: ``{order return: Order Return}``."""
    label: str = "label"
    """The field that holds the label value."""
    target: str | None = None
    """Template of the free text to write; only without a verbalizer."""
    references: str | None = None
    """Field that holds a right answer or a list of them, as ``answers[text]``; the target alone where absent."""
    metrics: tuple[str, ...] = ("accuracy",)
    """What is reported; the first decides which checkpoint is best."""
    protocol: Literal["recommended", "paper"] = "recommended"
    """``paper``: templates, targets, splits, lengths and scoring of Wang et al. 2023; see docs/decisions/0011."""
    prepare: str | None = None
    """Name of the function in ``mptune.tasks.prepare`` that every row goes through first."""
    chat: Switch = None
    """For models trained on conversations: the input is the user's turn in the model's own chat template. The prompt
    stands at the start of that turn (``user``, or ``true``), is the ``system`` turn, or stands ``first`` of all."""
    stop: str | None = Field(None, min_length=1)
    """What is written ends before these characters: a base model that is shown examples goes on with the next one."""
    scoring: Literal["labels", "generation"] = "labels"
    """Of a task with a verbalizer: its label words are ranked, or the text that is written must be one of them."""
    max_input_tokens: int | None = Field(None, ge=1)
    """Longer texts are cut at the end of their longest fields; takes the place of the stage's number."""
    every_answer: bool = False
    """Train on every right answer of a row, each an example of its own, and not on the target alone."""
    gather: bool = False
    """Validation and test rows with the same input are one row, with all their right answers; a row without any is
    passed over."""
    group: str | None = None
    """Template of what rows are judged together by ``group_exact_match``, as ``{idx[paragraph]}-{idx[question]}``."""
    subset: str | None = None
    """Field whose values divide the rows; where a split has several, each is scored apart too."""
    description: str = ""
    """One line for people."""

    @field_validator("verbalizer", mode="before")
    @classmethod
    def _label_values_are_text(cls, verbalizer: Any) -> Any:
        if not isinstance(verbalizer, Mapping):
            return verbalizer
        keys = [label_key(k) for k in verbalizer]
        twice = next((k for k in keys if keys.count(k) > 1), None)
        if twice is not None:
            raise ValueError(f"the label {twice} stands twice: {dict(verbalizer)}")
        return {k: str(w) for k, w in zip(keys, verbalizer.values(), strict=True)}

    @field_validator("relabel", mode="before")
    @classmethod
    def _relabelled_values_are_text(cls, relabel: Any) -> Any:
        return {label_key(k): label_key(v) for k, v in relabel.items()} if isinstance(relabel, Mapping) else relabel

    @field_validator("label")
    @classmethod
    def _label_is_a_column(cls, label: str) -> str:
        return column_name(label)

    @field_validator("metrics", mode="before")
    @classmethod
    def _one_metric_may_stand_alone(cls, metrics: Any) -> Any:
        return (metrics,) if isinstance(metrics, str) else metrics

    @field_validator("metrics")
    @classmethod
    def _metrics_exist(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [m for m in metrics if m not in METRICS]
        if unknown or not metrics:
            raise ValueError(f"wants one or more of {', '.join(METRICS)}; got {', '.join(unknown) or 'none'}")
        if metrics[0] in SMALLER_IS_BETTER:
            raise ValueError(f"the first decides which checkpoint is best by the larger score; {metrics[0]} may follow")
        return metrics

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if name.endswith(".partial"):
            raise ValueError(f"may not end in .partial, as the folder of an unfinished run does; got {name}")
        return name

    @field_validator("prepare")
    @classmethod
    def _preparation_exists(cls, name: str | None) -> str | None:
        if name is not None and name not in PREPARE:
            raise ValueError(f"wants one of {', '.join(PREPARE)}; got {name}")
        return name

    @field_validator("template", "target", "references", "group", "subset")
    @classmethod
    def _only_plain_fields(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is None:
            return None
        template = "{" + text + "}" if info.field_name in ("references", "subset") else text
        try:
            named = fields(template)
        except ValueError as error:
            raise ValueError(f"is no template ({error}); write {{{{ and }}}} for braces; got {text!r}") from None
        if strange := [name for name in named if not is_field(name)]:
            raise ValueError(f"may use {{field}} and {{field[key]}} only; got {{{strange[0]}}}")
        if not named and (text or info.field_name == "template"):
            raise ValueError(f"names no {{field}} of the rows; got {text!r}")
        return text

    @model_validator(mode="after")
    def _label_words_or_free_text(self) -> Self:
        if bool(self.verbalizer) == bool(self.target):
            raise ValueError(
                "a task has either a verbalizer (label value to label word) or a target (template of free text)"
            )
        if self.verbalizer and len(self.verbalizer) < 2:
            raise ValueError("a verbalizer needs two labels or more")
        if not all(word.strip() for word in self.verbalizer.values()):
            raise ValueError(f"a label has no word: {self.verbalizer}")
        if len(set(self.verbalizer.values())) < len(self.verbalizer):
            raise ValueError(f"two labels have the same word: {self.verbalizer}")
        if strange := [f"{old} as {new}" for old, new in self.relabel.items() if new not in self.verbalizer]:
            raise ValueError(f"relabel leads to what is no label of the verbalizer: {', '.join(strange)}")
        if both := [old for old in self.relabel if old in self.verbalizer]:
            raise ValueError(f"relabel replaces labels of the verbalizer: {', '.join(both)}")
        of_classes = [m for m in self.metrics if m in _OF_CLASSES]
        if of_classes and not self.verbalizer:
            raise ValueError(f"{', '.join(of_classes)} needs a verbalizer; free text has {', '.join(_OF_TEXT)}")
        if "group_exact_match" in self.metrics and not self.group:
            raise ValueError("group_exact_match needs group: a template of what rows are judged together")
        return self

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a prepared row that rendering reads, each once."""
        names = [name for text in self._texts().values() for name in _columns(text)]
        return tuple(dict.fromkeys([*names, *([self.label] if self.verbalizer else [])]))

    def lacking(self, row: Row, *, blank: bool) -> str | None:
        """Return what is wrong where a prepared row lacks fields, or has them empty, and what to do; else None.

        Args:
            blank: whether a text of nothing but spaces is empty.
        """
        empty = [f for f in self.fields if f in row and (is_missing(row[f]) or (blank and is_blank(row[f])))]
        it = "is empty; fill it" if len(empty) == 1 else "are empty; fill them"
        filling = [f"{', '.join(empty)} {it}, or leave the row out"] if empty else []
        return ". ".join([*self.absent(row, self.fields), *filling]) or None

    def absent(self, row: Row, fields: Sequence[str]) -> list[str]:
        """Return a sentence on those of the fields that are no columns of a row: who names them, what is meant."""
        said = []
        for name in (f for f in fields if f not in row):
            named = [part for part, text in self._texts().items() if name in _columns(text)]
            part = next(iter(named), "label")
            near = meant(name, tuple(map(str, row)))
            said.append(f"no {name}, which {part}: of the task names" + (f" (did you mean {near}?)" if near else ""))
        return [f"{', '.join(said)}; it has {there(row)}"] if said else []

    def _texts(self) -> dict[str, str]:
        """Return what names fields of a row, the template first, each as a template by its own name."""
        paths = {"references": self.references, "subset": self.subset}
        named = {"template": self.template, "target": self.target,
                 **{part: path and "{" + path + "}" for part, path in paths.items()}, "group": self.group}  # fmt: skip
        return {part: text for part, text in named.items() if text}

    @property
    def text_fields(self) -> tuple[str, ...]:
        """The fields of a row that its template reads, each once."""
        return tuple(dict.fromkeys(_columns(self.template)))

    def unreadable(self, row: Row) -> str | None:
        """Return why there is nothing to read in a row to answer: all that the template names is there, and empty."""
        if self.prepare is not None or not all(field in row for field in self.text_fields):
            return None
        empty = [field for field in self.text_fields if is_missing(row[field]) or is_blank(row[field])]
        if len(empty) == len(self.text_fields):
            return f"nothing to read, {', '.join(empty)} is empty; fill it, or leave the row out"
        gaps = [field for field in self.text_fields if is_missing(row[field])]
        return f"{', '.join(gaps)} is empty; write a text there, if only a space" if gaps else None

    @property
    def label_words(self) -> tuple[str, ...]:
        """The words of the verbalizer, in its order; none for free text."""
        return tuple(self.verbalizer.values())

    def label_value(self, row: Row) -> str:
        """Return a prepared row's label value, as the verbalizer knows it; none where it is missing.

        Raises:
            CellError: it is neither text nor a number.
        """
        value = label_key(row.get(self.label), self.label)
        return self.relabel.get(value, value)

    def is_unlabelled(self, row: Row) -> bool:
        """Return whether a prepared row has its label's column, and nothing in it."""
        return self.label in row and (is_missing(row[self.label]) or is_blank(row[self.label]))

    def prepared(self, row: Row) -> Row:
        """Return a row as ``prepare`` makes it.

        Raises:
            LookupError: the row lacks a field that preparing reads, or has it in another form.
            CellError: a field that preparing reads as text is none.
        """
        if self.prepare is None:
            return row
        try:
            return PREPARE[self.prepare](row)
        except CellError:
            raise
        except (AttributeError, TypeError, ValueError):
            raise KeyError(f"a field of the form that {self.prepare} reads") from None

    def unlabelled(self, row: Row, number: int = 0) -> Example:
        """Return the example of one row that is to be answered.

        Raises:
            LookupError: the row lacks a field of the template.
            CellError: a field of the template is no text.
        """
        text, spans = _filled(self.template, self.prepared(row))
        return Example(self.name, number, text, "", None, (), spans=spans)

    def render(self, row: Row, number: int = 0) -> Example:
        """Return the example of one labelled row.

        Raises:
            LookupError: the row lacks a field, or its label is not in the verbalizer.
            CellError: a field is no text.
        """
        return self.render_prepared(self.prepared(row), number)

    def render_prepared(self, row: Row, number: int = 0) -> Example:
        """As `render`, of a row that is prepared already."""
        text, spans = _filled(self.template, row)
        group = _filled(self.group, row)[0] if self.group else None
        subset = text_cell(_get(self.subset, row), self.subset) if self.subset else None
        if self.verbalizer:
            label = self.label_value(row)
            word = self.verbalizer[label]
            return Example(self.name, number, text, word, label, (word,), group, subset, spans)
        target, _ = _filled(self.target or "", row)
        answers = _get(self.references, row) if self.references else target
        given = answers if isinstance(answers, list | tuple) else (answers,)
        references = tuple(text_cell(answer, self.references or "target") for answer in given)
        return Example(self.name, number, text, target, None, references or (target,), group, subset, spans)

    def located(self, folder: Path) -> Self:
        """Return the task with its data files' paths relative to ``folder`` made absolute."""
        if self.dataset is None or self.dataset.hub is not None:
            return self
        parts = (*SPLITS, "unlabelled")
        named = {part: beside(folder, name) for part in parts if (name := getattr(self.dataset, part))}
        # A link keeps its name, whose ending says what it is.
        files: dict[str, Any] = {part: str(path.parent.resolve() / path.name) for part, path in named.items()}
        return self.model_copy(update={"dataset": self.dataset.model_copy(update=files)})

    def with_unlabelled(self, file: Path) -> Self:
        """Return the task with the rows of a file, whose labels nobody reads."""
        dataset = Dataset.read({"train": str(file), "unlabelled": str(file)}, f"the rows of {self.name}")
        return self.model_copy(update={"dataset": dataset})

    def without_paths(self) -> Self:
        """Return the task as a card carries it: what is needed to use a prompt, not where its data was."""
        return self.model_copy(update={"dataset": None})


@lru_cache(maxsize=256)
def _columns(template: str) -> tuple[str, ...]:
    """Return the columns that a template names, in its order; remembered, since a million rows may lack one."""
    return tuple(column_name(field.partition("[")[0]) for field in fields(template))


def there(row: Row) -> str:
    """Return the fields of a row for a message; those that are empty too, since they are there."""
    return ", ".join(map(str, row)) or "nothing"


def named_rows(numbers: Sequence[int]) -> str:
    """Return how many rows, and the first of them by their numbers, for a message: ``3 rows (2, 5, 9)``."""
    first = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
    return f"row {first}" if len(numbers) == 1 else f"{len(numbers)} rows ({first})"


def _filled(template: str, row: Mapping[str, Any]) -> tuple[str, tuple[Span, ...]]:
    """Return a template with the fields of a row, and where they stand."""
    text, spans = "", []
    for words, path in pieces(template):
        text += words
        if path is not None:
            held = text_cell(_get(path, row), path)
            spans.append(Span(path, len(text), len(text) + len(held)))
            text += held
    return text, tuple(spans)


def _get(path: str, row: Mapping[str, Any]) -> Any:
    """Return the field that ``answers[text][0]`` names."""
    name, *keys = re.findall(r"[^\[\]]+", path)
    try:
        value: Any = row[column_name(name)]
        for key in keys:
            value = value[int(key)] if isinstance(value, list | tuple) else value[key]
    except (LookupError, TypeError, ValueError):
        raise KeyError(path) from None
    if value is None:
        raise KeyError(path)
    return value
