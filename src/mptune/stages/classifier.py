"""An adaptation behind scikit-learn's interface: texts and labels in, classes and probabilities out."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from mptune.answers.prediction import Predictor
from mptune.config import AdaptConfig, BackboneConfig, EvaluateConfig
from mptune.model.backbone import Backbone
from mptune.model.loading import load_backbone
from mptune.prompts.prompt import MultitaskPrompt, backbone_of
from mptune.prompts.shipped import shipped_for
from mptune.stages.adaptation import adapt
from mptune.stages.ensemble import adapt_with_unlabelled
from mptune.tasks.cells import CellError, is_missing, label_key, text_cell
from mptune.tasks.data import TaskRows
from mptune.tasks.guess import label_words, question
from mptune.tasks.memory import is_frame
from mptune.tasks.task import Task

TEXT, LABEL = "text", "label"  # columns


class PromptClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of texts: one soft prompt, adapted from a multitask prompt, before a frozen backbone.

    Takes part in scikit-learn's pipelines, cross-validation and searches. Learnt: ``classes_`` and ``prompt_``, whose
    `save_pretrained` writes what `mptune predict` reads.
    """

    def __init__(
        self,
        source: str | Path | MultitaskPrompt | None = None,
        *,
        backbone: str | None = None,
        template: str | None = None,
        words: Mapping[Any, str] | None = None,
        steps: int = 100,
        shared_lr: float = 0.2,
        task_lr: float = 0.05,
        batch_size: int = 8,
        max_input_tokens: int = 256,
        random_state: Any = 0,
    ) -> None:
        """Keep the settings, which are `AdaptConfig`'s but for the first four.

        Args:
            source: multitask prompt, its folder, or its name; the one that ships for the backbone where None.
            backbone: Hugging Face id or folder of the frozen model; the source's own where None.
            template: what is read, with ``{text}`` in it; a question that names the classes where None.
            words: class to label word; the class itself where None.
        """
        self.source = source
        self.backbone = backbone
        self.template = template
        self.words = words
        self.steps = steps
        self.shared_lr = shared_lr
        self.task_lr = task_lr
        self.batch_size = batch_size
        self.max_input_tokens = max_input_tokens
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.one_d_array, tags.input_tags.two_d_array = True, True, False
        return tags

    def fit(self, X: Iterable[str], y: Sequence[Any], unlabelled: Iterable[str] | None = None) -> Self:  # noqa: N803
        """Adapt the source to labelled texts, all of which train.

        Args:
            X: N texts.
            y: their N classes.
            unlabelled: texts that nobody has labelled, which teachers answer, see `AdaptConfig.unlabelled_rows`.

        Raises:
            ValueError: no texts; not as many classes; fewer than two, or two that read the same.
            MptuneError: as `adapt`.
        """
        texts = _texts(X)
        check_consistent_length(texts, y)
        gap = next((number for number, each in enumerate(y, start=1) if is_missing(each)), None)
        if gap is not None:  # looked for before numpy makes the class "nan" of it
            raise ValueError(f"Input y contains NaN: text number {gap} has no class; fill it, or leave the text out")
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        self.classes_ = np.unique(labels)
        task = self._task()
        values = dict(zip(self.classes_.tolist(), task.verbalizer, strict=True))
        labelled = [{TEXT: t, LABEL: values[c]} for t, c in zip(texts, labels.tolist(), strict=True)]
        more = None if unlabelled is None else [{TEXT: text} for text in _texts(unlabelled)]
        rows = TaskRows.from_rows(labelled, task, unlabelled=more, hold_out=False)
        config = AdaptConfig(
            seed=_seed(self.random_state), validation_shots=0, steps=self.steps,
            shared_lr=self.shared_lr, task_lr=self.task_lr, batch_size=self.batch_size,
            max_input_tokens=self.max_input_tokens,
        )  # fmt: skip
        source = self.source
        if not isinstance(source, MultitaskPrompt):
            source = MultitaskPrompt.from_pretrained(source or shipped_for(self.backbone))
        learn = adapt if more is None else adapt_with_unlabelled
        self.prompt_ = learn(source, rows, self._backbone(source), config)
        return self

    def predict(self, X: Iterable[str]) -> Any:  # noqa: N803
        """Return the likeliest class of each of N texts. [N]"""
        likeliest = self.predict_proba(X).argmax(axis=1)
        return self.classes_[likeliest]

    def predict_proba(self, X: Iterable[str]) -> Any:  # noqa: N803
        """Return the probability of every class for each of N texts. [N, C]"""
        check_is_fitted(self)
        how = EvaluateConfig(max_input_tokens=self.max_input_tokens)
        predictor = Predictor(self._backbone(self.prompt_), [self.prompt_], how)
        answers = predictor.predict([{TEXT: text} for text in _texts(X)])
        return np.array([list((each.probabilities or {}).values()) for each in answers])

    def _task(self) -> Task:
        """Return the task that the classes make.

        Raises:
            ValueError: fewer than two, or two of one reading.
        """
        classes = self.classes_.tolist()
        if len(classes) < 2:
            raise ValueError(f"a classifier wants samples of two classes or more; got one class, {classes[0]!r}")
        values = [label_key(str(each)) for each in classes]
        if len(set(values)) < len(values) or "" in values:
            raise ValueError(f"classes are known by what they read, each by another; got {classes}")
        words = label_words(values)
        if self.words is not None:
            if missing := [each for each in classes if each not in self.words]:
                raise ValueError(f"words lacks the class {missing[0]!r}; it has {', '.join(map(str, self.words))}")
            words = {value: self.words[each] for value, each in zip(values, classes, strict=True)}
        template = self.template or question(LABEL, [TEXT], words)
        fields = {"name": "texts", "template": template, "verbalizer": words, "metrics": ("accuracy", "f1_macro")}
        return Task.read(fields, "the task of a classifier")

    def _backbone(self, prompt: MultitaskPrompt) -> Backbone:
        return _loaded(backbone_of(prompt, name=self.backbone, changes={"dtype": "auto"}))


@lru_cache(maxsize=1)
def _loaded(config: BackboneConfig) -> Backbone:
    """Return a backbone, which cross-validation would load at every fit."""
    return load_backbone(config)


def _seed(random_state: Any) -> int:
    """Return a number as it is, and of a generator, or of chance (None), one that is drawn."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


def _texts(given: Any) -> list[str]:
    """Return texts, one each.

    Raises:
        ValueError: a single text, none, or what is no text.
    """
    if isinstance(given, str | bytes | Mapping):
        raise ValueError(f"wants a list of texts; got {type(given).__name__}")
    if is_frame(given) or getattr(given, "ndim", 1) == 2:  # as scikit-learn's tables are, one column of which is read
        table = np.asarray(given, dtype=object)
        if table.shape[1] != 1:
            raise ValueError(f"wants one column of texts; got a table with {table.shape[1]}, pass the column alone")
        given = table[:, 0]
    texts = []
    for number, each in enumerate(given, start=1):
        try:
            texts.append(text_cell(each.item() if isinstance(each, np.generic) else each, TEXT))
        except (CellError, KeyError):
            raise ValueError(f"wants a list of texts; number {number} is {each!r:.40}") from None
    if not texts:
        raise ValueError("wants a list of texts; got none, found 0 samples")
    return texts
