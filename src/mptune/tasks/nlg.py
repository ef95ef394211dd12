"""Text from data. The paper's inputs and splits are not published: its rows differ in the template alone."""

from mptune.tasks.protocols import CONVERTED, OWN_SPLITS, PublicTask, hub
from mptune.tasks.task import Task

NLG = (
    PublicTask(
        Task(
            name="e2e_nlg",
            description="Describe a restaurant from its properties.",
            dataset=hub("tuetschek/e2e_nlg", revision=CONVERTED, **OWN_SPLITS),
            prepare="write_facts",
            template="Describe the place in words. {facts}",
            target="{human_reference}",
            gather=True,
            metrics=("bleu", "nist", "meteor", "rouge_l", "cider"),
        ),
        template="{facts}",
        splits={"overlap": "drop"},
    ),
    PublicTask(
        Task(
            name="web_nlg",
            description="Say in words what triples of a knowledge base say.",
            # This test split holds its rows several times, some without their texts.
            dataset=hub("webnlg-challenge/web_nlg", revision=CONVERTED, folder="webnlg_challenge_2017", **OWN_SPLITS),
            prepare="write_triples",
            template="Say in words what these facts say. {triples}",
            target="{lex[text][0]}",
            references="lex[text]",
            every_answer=True,
            gather=True,
            subset="categories",
            metrics=("bleu", "meteor", "ter", "chrf"),
        ),
        template="{triples}",
        splits={"overlap": "drop"},
    ),
)
