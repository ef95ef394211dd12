"""How the examples of a data set are divided, spread and gathered. Pure functions of lists of examples."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from mptune.tasks.dataset import IN_MEMORY
from mptune.tasks.task import Example, Split, Task
from mptune.terminal import warn_once

HELD_OUT_ROWS = 1_000  # rows taken from training data for a split that is missing: Raffel et al. 2020
HELD_OUT_SHARE = 10  # ... but at most every tenth row
# Of one file's rows, where the task asks for it: a fifth to test, then an eighth of the rest, a tenth of all.
TEST_SHARE, VALIDATION_SHARE = 1 / 5, 1 / 8
UNSEEN: dict[Split, str] = {"test": "tested", "validation": "validated"}  # what becomes of the rows of each split
_NAMED = 5  # labels in a line


def hold_out(task: Task, train: list[Example]) -> tuple[list[Example], list[Example]]:
    """Return training rows without, and the, rows that stand in for a missing split.

    A repeated input must not end on both sides, unless overlaps are kept. Inputs whose rows are gathered are held out
    whole, with all their rows.
    """
    assert task.dataset is not None
    texts = [normal(e.input) for e in train]
    units = list(dict.fromkeys(texts)) if task.gather else texts
    count = max(1, min(HELD_OUT_ROWS, len(units) // HELD_OUT_SHARE))
    drawn = shuffled(len(units))[:count]
    held_texts = {units[i] for i in drawn}
    held = [i for i, text in enumerate(texts) if text in held_texts] if task.gather else sorted(drawn)
    gone = set(held) if task.dataset.overlap == "keep" else {i for i, t in enumerate(texts) if t in held_texts}
    return [e for i, e in enumerate(train) if i not in gone], [train[i] for i in held]


def hold_out_of_each(train: list[Example], share: float) -> tuple[list[Example], list[Example]]:
    """Return training rows without, and the, rows that stand in for a missing split: a share of every class.

    A class of three texts or more gives one at least and keeps most; a text that stands several times is on one side.
    """
    of_class: dict[str | None, dict[str, None]] = {}
    for e in train:
        of_class.setdefault(e.label, {})[normal(e.input)] = None
    held: set[str] = set()
    for texts in of_class.values():
        units = list(texts)
        count = max(round(share * len(units)), 1) if len(units) > 2 else 0
        held |= {units[i] for i in shuffled(len(units))[:count]}
    sides = {kept: [e for e in train if (normal(e.input) not in held) == kept] for kept in (True, False)}
    return sides[True], sides[False]


def unseen(task: Task, train: Sequence[Example], held: Mapping[Split, Sequence[Example]]) -> list[str]:
    """Return a line for each of the ways in which labels of training rows have no row in other splits.

    Args:
        train: the rows from which others were taken, or beside which others stand.
        held: the test and validation rows, as far as there are any; others are not spoken of.
    """
    counts = Counter(e.label for e in train)
    there = {split: {e.label for e in examples} for split, examples in held.items() if examples}
    lacking: dict[str, list[str]] = {}
    for label in task.verbalizer:
        without = [UNSEEN[split] for split in UNSEEN if split in there and label not in there[split]]
        if counts[label] and without:
            how = f"neither {' nor '.join(without)}" if len(without) == len(UNSEEN) else f"not {without[0]}"
            lacking.setdefault(how, []).append(f"{label} has {counts[label]} row{'s' if counts[label] > 1 else ''}")
    return [
        f"{', '.join(labels[:_NAMED])}{f' and {len(labels) - _NAMED} labels more' if len(labels) > _NAMED else ''}: "
        f"{'it is' if len(labels) == 1 else 'they are'} {how}"
        for how, labels in lacking.items()
    ]


def check_overlap(
    task: Task, examples: dict[str, list[Example]], places: Mapping[str, str], problems: list[str]
) -> None:
    """Report training inputs that stand in another split too, or drop them where the task says so."""
    assert task.dataset is not None
    hint = 'overlap="drop"' if task.dataset.train == IN_MEMORY else "`overlap: drop` under dataset"
    for split in ("validation", "test"):
        if "train" not in examples or split not in examples:
            continue
        seen = {normal(e.input): e.row for e in examples[split]}
        shared = [e for e in examples["train"] if normal(e.input) in seen]
        if not shared:
            continue
        if task.dataset.overlap == "drop":
            warn_once(f"{task.name}: {len(shared)} training rows stand in {places[split]} too and are left out")
            examples["train"] = [e for e in examples["train"] if normal(e.input) not in seen]
        else:
            problems.extend(
                f"{places['train']} row {e.row} stands in {places[split]} too, row {seen[normal(e.input)]} "
                f"({hint} leaves such rows out of training)"
                for e in shared
            )


def halves(rows: list[Example]) -> tuple[list[Example], list[Example]]:
    """Return the validation and the test half of shuffled rows, each in the rows' own order; an odd row is tested."""
    order = shuffled(len(rows))
    half = len(rows) // 2
    return [rows[i] for i in sorted(order[:half])], [rows[i] for i in sorted(order[half:])]


def shuffled(count: int) -> list[int]:
    """Return 0..count-1 in the order of seed 42, the split seed of earlier prompt tuning papers."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(42)).tolist()


def to_train_on(task: Task, rows: list[Example]) -> list[Example]:
    """Return the first ``train_rows`` rows, one example for each of their right answers where every answer counts."""
    assert task.dataset is not None
    rows = rows[: task.dataset.train_rows]
    if not task.every_answer:
        return rows
    return [replace(e, target=answer) for e in rows for answer in dict.fromkeys(e.references)]


def gathered(rows: list[Example]) -> list[Example]:
    """Return one example for each input, the first, with the right answers of all."""
    answers: dict[str, dict[str, None]] = {}
    for e in rows:
        answers.setdefault(e.input, {}).update(dict.fromkeys(e.references))
    firsts = {e.input: e for e in reversed(rows)}
    return [replace(firsts[text], references=tuple(right)) for text, right in answers.items()]


def normal(text: str) -> str:
    """Return a text by which repeated inputs are known."""
    return " ".join(text.lower().split())
