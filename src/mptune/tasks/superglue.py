"""SuperGLUE's five target tasks, and ReCoRD, a source task of the paper."""

from mptune.tasks.protocols import HALVES, PublicTask, hub
from mptune.tasks.task import Task

SUPERGLUE = (
    PublicTask(
        Task(
            name="multirc",
            description="Is this a right answer to the question on the paragraph? There may be several.",
            dataset=hub("aps/super_glue", "multirc"),
            prepare="strip_markup",
            # Question and answer come first, since a long paragraph is cut at its end.
            template='Question: {question} By this text, is "{answer}" a right answer? {paragraph}',
            verbalizer={"0": "no", "1": "yes"},
            metrics=("f1", "group_exact_match", "accuracy"),
            group="{idx[paragraph]}-{idx[question]}",  # question texts repeat from paragraph to paragraph
            max_input_tokens=512,
        ),
        template="question: {question} answer: {answer} paragraph: {paragraph}",
        splits=HALVES,
        paper={"max_input_tokens": 348},
    ),
    PublicTask(
        Task(
            name="boolq",
            description="Is the answer to the question yes?",
            dataset=hub("aps/super_glue", "boolq"),
            template="{passage} From this text, {question}?",
            verbalizer={"0": "no", "1": "yes"},
        ),
        template="question: {question} passage: {passage}",
        splits=HALVES,
    ),
    PublicTask(
        Task(
            name="wic",
            description="Has the word the same meaning in both sentences?",
            dataset=hub("aps/super_glue", "wic"),
            template="Sentence 1: {sentence1} Sentence 2: {sentence2} "
            "Does the word {word} mean the same in both sentences?",
            verbalizer={"0": "no", "1": "yes"},
        ),
        template="sentence1: {sentence1} sentence2: {sentence2} word: {word}",
        splits=HALVES,
    ),
    PublicTask(
        Task(
            name="wsc",
            description="Does the pronoun stand for the other marked words?",
            dataset=hub("aps/super_glue", "wsc.fixed"),
            prepare="mark_spans",
            template='{text} In this text, does "{span2_text}" stand for "{span1_text}"?',
            verbalizer={"0": "no", "1": "yes"},
        ),
        template="text: {text}",
        splits=HALVES,
    ),
    PublicTask(
        Task(
            name="cb",
            description="Is the speaker committed to the hypothesis?",
            dataset=hub("aps/super_glue", "cb"),
            template='{premise} From this text, can we conclude that "{hypothesis}"?',
            verbalizer={"0": "yes", "1": "no", "2": "maybe"},
            metrics=("accuracy", "f1_macro"),
        ),
        template="premise: {premise} hypothesis: {hypothesis}",
        splits=HALVES,
    ),
    PublicTask(
        Task(
            name="record",
            description="Which name of the passage is left out of the query?",
            dataset=hub("aps/super_glue", "record"),
            prepare="join_entities",
            # In the words of SQuAD: unprompted, the embedded backbone then answers with names (docs/LOG.md,
            # 2026-11-20: STS-B, written or ranked).
            template='Answer the question from the text. Question: Who or what is @placeholder in "{query}"? '
            "Choose from: {entities}. Text: {passage}",
            target="{answers[0]}",
            references="answers",
            every_answer=True,
            metrics=("squad_f1", "exact_match"),
            max_input_tokens=512,
        ),
        template="record query: {query} entities: {entities} passage: {passage}",
        paper={"max_input_tokens": 512},
    ),
)
