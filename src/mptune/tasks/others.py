"""The paper's four other classification tasks."""

from mptune.tasks.protocols import HALVES, OWN_SPLITS, PublicTask, hub
from mptune.tasks.task import Task

OTHERS = (
    PublicTask(
        Task(
            name="winogrande",
            description="Which of two names fills the blank?",
            dataset=hub("allenai/winogrande", "winogrande_xl"),
            template="{sentence} Does the blank _ stand for the first or the second? "
            "The first: {option1}. The second: {option2}.",
            label="answer",
            verbalizer={"1": "first", "2": "second"},
        ),
        template="sentence: {sentence} option0: {option1} option1: {option2}",
    ),
    PublicTask(
        Task(
            name="yelp",
            description="Is the review of a place positive?",
            dataset=hub("fancyzhx/yelp_polarity", train="train", test="test"),
            # The question comes first, since a long review is cut at its end.
            template="Is this review negative or positive? Review: {text}",
            verbalizer={"0": "negative", "1": "positive"},
        ),
        template="sentence: {text}",
        splits={"train_rows": 100_000},
    ),
    PublicTask(
        Task(
            name="scitail",
            description="Does the sentence entail the scientific claim?",
            dataset=hub("allenai/scitail", "tsv_format", **OWN_SPLITS),
            template='{premise} From this text, can we conclude that "{hypothesis}"?',
            verbalizer={"entails": "yes", "neutral": "no"},
        ),
        template="premise: {premise} hypothesis: {hypothesis}",
        splits=HALVES,
    ),
    PublicTask(
        Task(
            name="paws",
            description="Do the two sentences, made of much the same words, mean the same?",
            dataset=hub("google-research-datasets/paws", "labeled_final", **OWN_SPLITS),
            template="Sentence 1: {sentence1} Sentence 2: {sentence2} Do these two sentences mean the same thing?",
            verbalizer={"0": "no", "1": "yes"},
        ),
        template="sentence1: {sentence1} sentence2: {sentence2}",
    ),
)
