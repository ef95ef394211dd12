"""A written instruction as a teacher: the frozen model that reads it before every row, and what it answers then.

How a prompt of a few tokens learns from it, `distill` says. Source of the idea: context distillation, Askell et al.
2021 (arXiv:2112.00861), section 2; gist tokens, Mu et al. 2023 (arXiv:2304.08467), do it with weights that learn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from mptune.answers.evaluation import answer
from mptune.config import EvaluateConfig, ExamplesConfig
from mptune.errors import DataError, UsageError
from mptune.model.backbone import Backbone
from mptune.model.encoding import Encoded, encode
from mptune.tasks.data import TaskRows
from mptune.tasks.splits import normal, shuffled
from mptune.tasks.task import Example, Span, Task

PLACE = "{text}"  # in an instruction: where a row's text goes; behind it where there is none
FEWEST, MOST_CHECKED, MOST_TESTED = 10, 200, 500  # rows: in all, to choose a state by, to be compared on


@dataclass(frozen=True)
class Instruction:
    """A teacher of one task that is a text."""

    task: Task
    text: str

    def __post_init__(self) -> None:
        """Refuse what is no instruction.

        Raises:
            UsageError: it is empty, or has several places for the text.
        """
        if not self.text.strip():
            raise UsageError("an instruction wants words; got none")
        if self.text.count(PLACE) > 1:
            raise UsageError(f"an instruction has one place for a row, {PLACE}; got {self.text.count(PLACE)}")

    def before(self, example: Example) -> Example:
        """Return a row as the teacher reads it; what may be cut of it stays the row's own texts."""
        text = self.text.rstrip()
        first, _, last = (text if PLACE in text else f"{text}\n\n{PLACE}").partition(PLACE)
        own = example.spans or (Span("text", 0, len(example.input)),)
        spans = tuple(Span(s.field, s.start + len(first), s.end + len(first)) for s in own)
        return replace(example, input=f"{first}{example.input}{last}", spans=spans)

    def tokens(self, backbone: Backbone) -> list[int]:
        """Return the token ids of its words."""
        ids: list[int] = backbone.tokenizer(self.text.replace(PLACE, ""), add_special_tokens=False)["input_ids"]
        return ids

    def encode(self, examples: Sequence[Example], backbone: Backbone, config: ExamplesConfig) -> Encoded:
        """Return rows as the teacher's token ids: the instruction whole, and of a row as much as a student reads."""
        most = (self.task.max_input_tokens or config.max_input_tokens) + len(self.tokens(backbone))
        task = self.task.model_copy(update={"max_input_tokens": most})
        return encode(task, [self.before(e) for e in examples], backbone, config, 0)


def answered_rows(instruction: Instruction, rows: TaskRows, backbone: Backbone, config: ExamplesConfig) -> TaskRows:
    """Return rows without labels with the teacher's answers for labels: to train on, to choose a state, to compare.

    A fifth of them, at most 500, are the test rows, and a tenth, at most 200, the validation rows: no student sees
    them.

    Args:
        rows: of the instruction's task, with ``unlabelled``.

    Raises:
        DataError: fewer than ten rows, or what cannot be rendered.
    """
    task = rows.task
    examples = list({normal(e.input): e for e in rows.unlabelled()}.values())  # the same text is on one side
    if len(examples) < FEWEST:
        raise DataError(
            task.name, [f"an instruction is learnt from {FEWEST} rows or more, each once; got {len(examples)}"]
        )
    data = instruction.encode(examples, backbone, config)
    how = EvaluateConfig(max_target_tokens=config.max_target_tokens)
    (answers,) = answer(backbone, [torch.zeros(0, backbone.width)], [data], how, labelled=False)
    value_of = {word: value for value, word in task.verbalizer.items()}
    answered = [
        replace(example, target=text, label=value_of.get(text), references=(text,))
        for example, text in zip(examples, answers.texts, strict=True)
    ]
    order = shuffled(len(answered))
    tested, checked = min(MOST_TESTED, len(order) // 5), min(MOST_CHECKED, len(order) // 10)
    parts = order[:tested], order[tested : tested + checked], order[tested + checked :]
    test, validation, train = ([answered[i] for i in sorted(part)] for part in parts)
    return TaskRows.of_examples(task, train=train, validation=validation, test=test)
