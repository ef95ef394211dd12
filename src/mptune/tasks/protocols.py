"""A public data set under two protocols: the recommended task, and what the paper's changes of it.

Recommended: templates ask in words, and words, not digits, say the labels (docs/decisions/0003); where a data set's own
test labels are secret, its validation split is the test split, and validation rows are held out of the training rows
(Raffel et al. 2020). The paper's: docs/decisions/0011.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mptune.tasks.dataset import Dataset, HubData
from mptune.tasks.task import Task

TEST_IS_VALIDATION = {"train": "train", "test": "validation"}
OWN_SPLITS = {"train": "train", "validation": "validation", "test": "test"}
HALVES = {"validation": None, "test": "validation", "split": "halves"}
# Training rows as published: by the logs of Shi and Lipani 2024 (arXiv:2309.05173), which follow the paper's splits.
PUBLISHED_ROWS = {
    "mnli": 392_702, "qqp": 362_846, "qnli": 103_743, "sst2": 66_349, "stsb": 5_749, "mrpc": 3_668, "rte": 2_490,
    "cola": 8_551, "multirc": 27_243, "boolq": 9_427, "wic": 5_428, "wsc": 554, "cb": 250, "record": 100_730,
    "squad": 86_599, "nq": 103_071, "hotpotqa": 71_928, "newsqa": 73_160, "searchqa": 116_384, "winogrande": 39_398,
    "yelp": 100_000, "scitail": 23_596, "paws": 49_401,
}  # fmt: skip
CONVERTED = "refs/convert/parquet"  # the branch in which the hub keeps parquet files of repositories that are scripts


def hub(
    path: str, name: str | None = None, *, revision: str | None = None, folder: str | None = None, **splits: str
) -> Dataset:
    """Return a data set on the hub, whose validation split is the test split where no splits are named."""
    place = HubData(path=path, name=name, revision=revision, folder=folder)
    # Several of these sets hold a few rows in two splits.
    return Dataset.model_validate({"hub": place, "overlap": "drop", **(splits or TEST_IS_VALIDATION)})


@dataclass(frozen=True)
class PublicTask:
    """A data set's task, and the fields that the paper's protocol changes."""

    task: Task
    template: str  # the paper's
    splits: Mapping[str, Any] = field(default_factory=dict)  # fields of the data set that differ in the paper
    paper: Mapping[str, Any] = field(default_factory=dict)  # other fields of the task that do

    def paper_task(self) -> Task:
        """Return the task under the paper's protocol: labels are bare digits, and what is written must equal them."""
        recommended = self.task.model_dump(exclude_none=True)
        changes = {
            "protocol": "paper",
            "template": self.template,
            "verbalizer": {value: str(digit) for digit, value in enumerate(self.task.verbalizer)},
            "scoring": "generation",
            "max_input_tokens": 256,
            "dataset": {**recommended["dataset"], "overlap": "keep", **self.splits},
        }
        return Task.model_validate({**recommended, **changes, **self.paper})
