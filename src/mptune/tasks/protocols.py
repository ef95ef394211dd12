"""A public data set under two protocols: the recommended task, and what the paper's changes of it.

Recommended: templates ask in words, and words, not digits, say the labels (docs/decisions/0003); where a data set's own
test labels are secret, its validation split is the test split, and validation rows are held out of the training rows
(Raffel et al. 2020). The paper's: docs/decisions/0011.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mptune.tasks.task import Dataset, HubData, Task

TEST_IS_VALIDATION = {"train": "train", "test": "validation"}
OWN_SPLITS = {"train": "train", "validation": "validation", "test": "test"}
HALVES = {"validation": None, "test": "validation", "split": "halves"}
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
