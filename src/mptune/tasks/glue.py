"""GLUE's eight tasks. MNLI, QQP, QNLI and SST-2 are source tasks of the paper too."""

from mptune.tasks.protocols import HALVES, PublicTask, hub
from mptune.tasks.task import Task

GLUE = (
    PublicTask(
        Task(
            name="mnli",
            description="Does the premise entail the hypothesis?",
            dataset=hub("nyu-mll/glue", "mnli", train="train", test="validation_matched"),
            template='{premise} From this text, can we conclude that "{hypothesis}"?',
            verbalizer={"0": "yes", "1": "maybe", "2": "no"},
        ),
        template="premise: {premise} hypothesis: {hypothesis}",
        splits={"validation": "validation_mismatched"},
    ),
    PublicTask(
        Task(
            name="qnli",
            description="Does the sentence answer the question?",
            dataset=hub("nyu-mll/glue", "qnli"),
            template="Question: {question} Sentence: {sentence} Does the sentence answer the question?",
            verbalizer={"0": "yes", "1": "no"},
        ),
        template="question: {question} sentence: {sentence}",
    ),
    PublicTask(
        Task(
            name="qqp",
            description="Do the two questions ask the same?",
            dataset=hub("nyu-mll/glue", "qqp"),
            template="Question 1: {question1} Question 2: {question2} Are these two questions asking the same thing?",
            verbalizer={"0": "no", "1": "yes"},
            metrics=("accuracy", "f1"),
        ),
        template="question1: {question1} question2: {question2}",
    ),
    PublicTask(
        Task(
            name="sst2",
            description="Is the remark on a film positive?",
            dataset=hub("nyu-mll/glue", "sst2"),
            template="Review: {sentence} Is this review negative or positive?",
            verbalizer={"0": "negative", "1": "positive"},
        ),
        template="sentence: {sentence}",
    ),
    PublicTask(
        Task(
            name="stsb",
            description="How much do the two sentences mean the same, from 0 to 5?",
            dataset=hub("nyu-mll/glue", "stsb"),
            prepare="round_similarity",
            template="Sentence 1: {sentence1} Sentence 2: {sentence2} "
            "On a scale from 0 to 5, how similar are these two sentences?",
            target="{rounded}",
            references="label",
            metrics=("pearson", "spearman"),
        ),
        template="sentence1: {sentence1} sentence2: {sentence2}",
        splits=HALVES,
        paper={"references": None},
    ),
    PublicTask(
        Task(
            name="mrpc",
            description="Do the two sentences mean the same?",
            dataset=hub("nyu-mll/glue", "mrpc"),
            template="Sentence 1: {sentence1} Sentence 2: {sentence2} Do these two sentences mean the same thing?",
            verbalizer={"0": "no", "1": "yes"},
            metrics=("accuracy", "f1"),
        ),
        template="sentence1: {sentence1} sentence2: {sentence2}",
        splits=HALVES,
    ),
    PublicTask(
        Task(
            name="rte",
            description="Does the first text entail the second?",
            dataset=hub("nyu-mll/glue", "rte"),
            template='{sentence1} From this text, can we conclude that "{sentence2}"?',
            verbalizer={"0": "yes", "1": "no"},
        ),
        template="sentence1: {sentence1} sentence2: {sentence2}",
        splits=HALVES,
    ),
    PublicTask(
        Task(
            name="cola",
            description="Is the sentence acceptable English?",
            dataset=hub("nyu-mll/glue", "cola"),
            template="Sentence: {sentence} Is this sentence acceptable English?",
            verbalizer={"0": "no", "1": "yes"},
            metrics=("accuracy", "matthews"),
        ),
        template="sentence: {sentence}",
        splits=HALVES,
        paper={"metrics": ("matthews", "accuracy")},
    ),
)
