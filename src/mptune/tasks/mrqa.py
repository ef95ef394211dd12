"""Questions on a text: SQuAD, a source task of the paper, and four sets as the MRQA 2019 shared task formatted them."""

from mptune.tasks.protocols import PublicTask, hub
from mptune.tasks.task import Task

_ASKED = "Answer the question from the text. Question: {question} Text: {context}"
_TERSE = "question: {question} context: {context}"
_METRICS = ("squad_f1", "exact_match")
# Answers in the paper's pipeline are padded, and judged against the first right one alone.
_PAPER = {"prepare": "pad_punctuation", "references": None, "max_input_tokens": 512}


def _mrqa(name: str, description: str, path: str, revision: str | None = None) -> PublicTask:
    return PublicTask(
        Task(
            name=name,
            description=description,
            dataset=hub(path, revision=revision),
            template=_ASKED,
            target="{answers[0]}",
            references="answers",
            metrics=_METRICS,
            max_input_tokens=512,
        ),
        template=_TERSE,
        paper=_PAPER,
    )


MRQA = (
    PublicTask(
        Task(
            name="squad",
            description="Answer a question from its paragraph.",
            dataset=hub("rajpurkar/squad"),
            template=_ASKED,
            target="{answers[text][0]}",
            references="answers[text]",
            metrics=_METRICS,
        ),
        template=_TERSE,
        paper=_PAPER,
    ),
    _mrqa(
        "nq",
        "Answer a search question from an encyclopedia's paragraph.",
        "lucadiliello/naturalquestionsshortqa",
        "49435450b0abb287be45639fdaa49a9b56512f9b",
    ),
    _mrqa(
        "hotpotqa",
        "Answer a question that needs two of several paragraphs.",
        "lucadiliello/hotpotqa",
        "87a889a73da456a0888ab25d6e91aaf2ff6e9976",
    ),
    _mrqa(
        "searchqa",
        "Answer a quiz clue from the snippets that a search found.",
        "lucadiliello/searchqa",
        "c1a979068ba118d85467179b704031d113d689cc",
    ),
    _mrqa("newsqa", "Answer a question from a news story.", "lucadiliello/newsqa"),
)
