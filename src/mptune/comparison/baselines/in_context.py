"""In-context learning: labelled rows stand before the text, and nothing is trained."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, zip_longest

import torch

from mptune.answers.evaluation import answer
from mptune.comparison.baselines.classic import labelled
from mptune.comparison.config import InContextConfig
from mptune.comparison.systems import Classifier, Sources, System
from mptune.comparison.trials import Trial
from mptune.config import EvaluateConfig
from mptune.model.backbone import Backbone
from mptune.model.encoding import encode, encode_inputs
from mptune.stages.experiment import Experiment
from mptune.tasks.task import Example, Span, Task

BETWEEN = "\n\n"  # rows


def in_context(trial: Trial, sources: Sources) -> list[System]:
    """As many labelled rows before each text as fit, each with its answer, classes in turn.

    Source: Brown et al. 2020 (arXiv:2005.14165), section 2.
    """
    backbone = sources.backbone(trial.contender.settings)
    with Experiment("in-context", trial.targets, backbone, trial.config, 0, out=None) as experiment:
        shown = in_turn(labelled(experiment), experiment.random)
        reads = InContext(shown, experiment.tasks[0], backbone, experiment.config)
        return [System(reads, 0, backbone, cards=[experiment.card()])]


class InContext(Classifier):
    """Labelled rows, in the order in which they are shown."""

    def __init__(self, shown: Sequence[Example], task: Task, backbone: Backbone, config: InContextConfig) -> None:
        self.task, self.backbone, self.config = task, backbone, config
        self.texts = [f"{example.input} {example.target}" for example in shown]
        self.lengths = self._lengths([text + BETWEEN for text in self.texts])

    def answers(self, examples: Sequence[Example], config: EvaluateConfig) -> Sequence[str]:
        """Return what the backbone answers to each text behind the rows that fit before it."""
        texts = zip(examples, self._lengths([example.input for example in examples]), strict=True)
        asked = [moved(e, self.behind(e.input, length)) for e, length in texts]
        # A task may say how long its texts are; here the rows count too.
        whole = self.task.model_copy(update={"max_input_tokens": None})
        data = encode(whole, asked, self.backbone, self.config, 0)
        (answers,) = answer(self.backbone, [torch.zeros(0, self.backbone.width)], [data], config)
        return answers.texts

    def behind(self, text: str, length: int) -> str:
        """Return a text behind the rows that fit before it; the text stays whole, if it fits itself."""
        room, rows = self.config.max_input_tokens - length, list[str]()
        for shown, tokens in zip(self.texts, self.lengths, strict=True):
            room -= tokens
            if room < 0:
                break
            rows.append(shown)
        return BETWEEN.join([*rows, text])

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        most = self.config.max_input_tokens
        return [len(ids) for ids in encode_inputs(self.backbone, texts, most, 0, 0)]


def moved(example: Example, text: str) -> Example:
    """Return an example at the end of a longer text, of which its own fields may still be cut."""
    ahead = len(text) - len(example.input)
    spans = tuple(Span(s.field, s.start + ahead, s.end + ahead) for s in example.spans)
    return replace(example, input=text, spans=spans)


def in_turn(examples: Sequence[Example], random: torch.Generator) -> list[Example]:
    """Return examples shuffled, one of each class in turn, so that a few of them show all classes."""
    order = torch.randperm(len(examples), generator=random).tolist()
    of_class: dict[str | None, list[Example]] = {}
    for i in order:
        of_class.setdefault(examples[i].label, []).append(examples[i])
    return [e for e in chain.from_iterable(zip_longest(*of_class.values())) if e is not None]
