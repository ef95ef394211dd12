"""What a task's rows are, seen before anything is learnt: classes, rendered texts with their lengths, doubts."""

from collections import Counter
from dataclasses import dataclass

from mptune.config import AdaptConfig
from mptune.errors import DataError
from mptune.model.backbone import Backbone
from mptune.model.encoding import encode
from mptune.tasks.data import TaskRows
from mptune.tasks.doubts import doubts
from mptune.tasks.splits import unseen
from mptune.tasks.task import SPLITS, Example, Split

SHOWN = 3  # rendered rows


@dataclass(frozen=True)
class TaskCheck:
    """What there is to see of a task's rows."""

    classes: tuple[tuple[str, str, tuple[int, ...]], ...]  # label value, label word, rows of every split there is
    splits: tuple[str, ...]
    texts: tuple[tuple[Example, int], ...]  # some training rows, with their tokens
    longest: int  # tokens of the longest training text, as far as it is read
    doubts: tuple[str, ...]


def check(rows: TaskRows, backbone: Backbone, config: AdaptConfig | None = None) -> TaskCheck:
    """Return what a task's rows are; what would be cut of them is logged.

    Args:
        config: with the lengths to which texts are cut; the default adaptation's where None.

    Raises:
        DataError: rows that do not fit their task, or labels that the backbone cannot tell apart.
    """
    dataset = rows.task.dataset
    if dataset is None:
        raise DataError(rows.name, ["it names no rows; add dataset: to its file"])
    held_out = dataset.split == "held-out"
    there = tuple(s for s in SPLITS if held_out or s == "train" or getattr(dataset, s))
    data = rows.data(*there)
    examples = {split: getattr(data, split) for split in there}
    counts = {split: Counter(e.label for e in examples[split]) for split in there}
    config = config or AdaptConfig()
    encoded = encode(rows.task, data.train, backbone, config, prompt_length=0)
    # One row of each class in turn, so that what is shown is not all of one kind.
    firsts = list({e.label: i for i, e in reversed(list(enumerate(data.train)))}.values())
    others = [i for i in range(len(data.train)) if i not in firsts]
    # Of what was held out of the training rows it has been said.
    others_named: dict[Split, list[Example]] = {
        split: examples[split] for split in there if split != "train" and not held_out
    }
    said = [f"{rows.name}: {each}" for each in unseen(rows.task, data.train, others_named)]
    return TaskCheck(
        tuple((v, w, tuple(counts[s][v] for s in there)) for v, w in rows.task.verbalizer.items()),
        there,
        tuple((data.train[i], len(encoded.inputs[i])) for i in sorted([*firsts, *others][:SHOWN])),
        max(map(len, encoded.inputs), default=0),
        (*doubts(rows.task, data.train, None), *said),
    )
