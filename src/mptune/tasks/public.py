"""Rows for public data sets: where they are on the hub, how they read, how their labels are said.

Where a data set's own test labels are secret, its validation split is the test split here, and validation rows are
held out of the training rows (Raffel et al. 2020). Templates ask in words, and words, not digits, say the labels: see
docs/decisions/0003.
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
        template='{premise} From this text, can we conclude that "{hypothesis}"?',
        verbalizer={"0": "yes", "1": "maybe", "2": "no"},
    ),
    Task(
        name="qnli",
        description="Does the sentence answer the question?",
        dataset=_hub("nyu-mll/glue", "qnli"),
        template="Question: {question} Sentence: {sentence} Does the sentence answer the question?",
        verbalizer={"0": "yes", "1": "no"},
    ),
    Task(
        name="qqp",
        description="Do the two questions ask the same?",
        dataset=_hub("nyu-mll/glue", "qqp"),
        template="Question 1: {question1} Question 2: {question2} Are these two questions asking the same thing?",
        verbalizer={"0": "no", "1": "yes"},
        metrics=("accuracy", "f1"),
    ),
    Task(
        name="sst2",
        description="Is the remark on a film positive?",
        dataset=_hub("nyu-mll/glue", "sst2"),
        template="Review: {sentence} Is this review negative or positive?",
        verbalizer={"0": "negative", "1": "positive"},
    ),
    Task(
        name="squad",
        description="Answer a question from its paragraph.",
        dataset=_hub("rajpurkar/squad"),
        template="Answer the question from the text. Question: {question} Text: {context}",
        target="{answers[text][0]}",
        references="answers[text]",
        metrics=("squad_f1", "exact_match"),
    ),
    Task(
        name="rte",
        description="Does the first text entail the second?",
        dataset=_hub("nyu-mll/glue", "rte"),
        template='{sentence1} From this text, can we conclude that "{sentence2}"?',
        verbalizer={"0": "yes", "1": "no"},
    ),
    Task(
        name="mrpc",
        description="Do the two sentences mean the same?",
        dataset=_hub("nyu-mll/glue", "mrpc"),
        template="Sentence 1: {sentence1} Sentence 2: {sentence2} Do these two sentences mean the same thing?",
        verbalizer={"0": "no", "1": "yes"},
        metrics=("accuracy", "f1"),
    ),
    Task(
        name="cola",
        description="Is the sentence acceptable English?",
        dataset=_hub("nyu-mll/glue", "cola"),
        template="Sentence: {sentence} Is this sentence acceptable English?",
        verbalizer={"0": "no", "1": "yes"},
        metrics=("accuracy", "matthews"),
    ),
    Task(
        name="boolq",
        description="Is the answer to the question yes?",
        dataset=_hub("aps/super_glue", "boolq"),
        template="{passage} From this text, {question}?",
        verbalizer={"0": "no", "1": "yes"},
    ),
    Task(
        name="cb",
        description="Is the speaker committed to the hypothesis?",
        dataset=_hub("aps/super_glue", "cb"),
        template='{premise} From this text, can we conclude that "{hypothesis}"?',
        verbalizer={"0": "yes", "1": "no", "2": "maybe"},
        metrics=("accuracy", "f1_macro"),
    ),
    Task(
        name="wic",
        description="Has the word the same meaning in both sentences?",
        dataset=_hub("aps/super_glue", "wic"),
        template="Sentence 1: {sentence1} Sentence 2: {sentence2} "
        "Does the word {word} mean the same in both sentences?",
        verbalizer={"0": "no", "1": "yes"},
    ),
)
