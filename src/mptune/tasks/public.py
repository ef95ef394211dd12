"""Rows for public data sets: where they are on the hub, how they read, how their labels are said.

Where a data set's own test labels are secret, its validation split is the test split here, and validation rows are
held out of the training rows (Raffel et al. 2020). Words, not digits, say the labels: see docs/decisions/0003.
"""

from mptune.tasks.task import Dataset, HubData, Task

_HELD_OUT = {"train": "train", "test": "validation"}


def _hub(path: str, name: str | None = None, **splits: str) -> Dataset:
    # Several of these sets hold a few rows in two splits.
    return Dataset.model_validate({"hub": HubData(path=path, name=name), "overlap": "drop", **(splits or _HELD_OUT)})


PUBLIC = (
    Task(
        name="mnli",
        description="Does the premise entail the hypothesis?",
        dataset=_hub("nyu-mll/glue", "mnli", train="train", test="validation_matched"),
        template="mnli premise: {premise} hypothesis: {hypothesis}",
        verbalizer={"0": "yes", "1": "maybe", "2": "no"},
    ),
    Task(
        name="qnli",
        description="Does the sentence answer the question?",
        dataset=_hub("nyu-mll/glue", "qnli"),
        template="qnli question: {question} sentence: {sentence}",
        verbalizer={"0": "yes", "1": "no"},
    ),
    Task(
        name="qqp",
        description="Do the two questions ask the same?",
        dataset=_hub("nyu-mll/glue", "qqp"),
        template="qqp question1: {question1} question2: {question2}",
        verbalizer={"0": "different", "1": "same"},
        metrics=("accuracy", "f1"),
    ),
    Task(
        name="sst2",
        description="Is the remark on a film positive?",
        dataset=_hub("nyu-mll/glue", "sst2"),
        template="sst2 sentence: {sentence}",
        verbalizer={"0": "negative", "1": "positive"},
    ),
    Task(
        name="squad",
        description="Answer a question from its paragraph.",
        dataset=_hub("rajpurkar/squad"),
        template="squad question: {question} context: {context}",
        target="{answers[text][0]}",
        references="answers[text]",
        metrics=("squad_f1", "exact_match"),
    ),
    Task(
        name="rte",
        description="Does the first text entail the second?",
        dataset=_hub("nyu-mll/glue", "rte"),
        template="rte premise: {sentence1} hypothesis: {sentence2}",
        verbalizer={"0": "yes", "1": "no"},
    ),
    Task(
        name="mrpc",
        description="Do the two sentences mean the same?",
        dataset=_hub("nyu-mll/glue", "mrpc"),
        template="mrpc sentence1: {sentence1} sentence2: {sentence2}",
        verbalizer={"0": "different", "1": "same"},
        metrics=("accuracy", "f1"),
    ),
    Task(
        name="cola",
        description="Is the sentence acceptable English?",
        dataset=_hub("nyu-mll/glue", "cola"),
        template="cola sentence: {sentence}",
        verbalizer={"0": "unacceptable", "1": "acceptable"},
        metrics=("accuracy", "matthews"),
    ),
    Task(
        name="cb",
        description="Is the speaker committed to the hypothesis?",
        dataset=_hub("aps/super_glue", "cb"),
        template="cb premise: {premise} hypothesis: {hypothesis}",
        verbalizer={"0": "yes", "1": "no", "2": "maybe"},
        metrics=("accuracy", "f1_macro"),
    ),
    Task(
        name="wic",
        description="Has the word the same meaning in both sentences?",
        dataset=_hub("aps/super_glue", "wic"),
        template="wic sentence1: {sentence1} sentence2: {sentence2} word: {word}",
        verbalizer={"0": "different", "1": "same"},
    ),
)
