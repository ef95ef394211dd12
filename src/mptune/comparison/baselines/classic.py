"""Logistic regression: on word counts, and on features of the frozen backbone.

What everybody tries first. Where the topic of a text decides, it is hard to beat.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mptune.comparison.config import ProbeConfig
from mptune.comparison.systems import Classifier, Sources, System
from mptune.comparison.trials import Trial
from mptune.config import EvaluateConfig
from mptune.model.backbone import Backbone
from mptune.model.encoding import encode
from mptune.model.scoring import text_features
from mptune.stages.experiment import Experiment
from mptune.tasks.task import Example, Task

Features = Callable[[Sequence[Example]], Any]  # what a pipeline of scikit-learn takes of N examples


class Fitted(Classifier):
    """A pipeline of scikit-learn, and what it looks at."""

    def __init__(self, pipeline: Any, features: Features, task: Task) -> None:
        self.pipeline, self.features, self.task = pipeline, features, task

    def answers(self, examples: Sequence[Example], config: EvaluateConfig) -> Sequence[str]:
        """Return the likeliest label's word for each example."""
        return [self.task.verbalizer[label] for label in self.pipeline.predict(self.features(examples))]


def tf_idf(trial: Trial, sources: Sources) -> list[System]:
    """Logistic regression on word counts."""
    backbone, config = sources.backbone(trial.contender.settings), trial.config
    with Experiment("tf-idf", trial.targets, backbone, config, 0, out=None) as experiment:
        fitted = fit_word_counts(experiment.tasks[0], labelled(experiment), config)
        return [_system(fitted, experiment)]


def linear_probe(trial: Trial, sources: Sources) -> list[System]:
    """Logistic regression on features of the frozen backbone."""
    backbone, config = sources.backbone(trial.contender.settings), trial.config
    with Experiment("linear-probe", trial.targets, backbone, config, 0, out=None) as experiment:
        fitted = fit_probe(experiment.tasks[0], labelled(experiment), backbone, config)
        return [_system(fitted, experiment)]


def fit_word_counts(task: Task, examples: Sequence[Example], config: ProbeConfig) -> Fitted:
    """Logistic regression on the counts of words and of pairs of words, rare ones weighing more.

    Source: the usual first try; Wang and Manning 2012 (P12-2018) on how far it goes.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    return _fitted(task, examples, config, [vectors], lambda some: [e.input for e in some])


def fit_probe(task: Task, examples: Sequence[Example], backbone: Backbone, config: ProbeConfig) -> Fitted:
    """Logistic regression on what the frozen backbone makes of a text, each feature in units of its spread."""
    from sklearn.preprocessing import StandardScaler

    def features(some: Sequence[Example]) -> Any:
        return text_features(backbone, encode(task, some, backbone, config, 0)).numpy()

    return _fitted(task, examples, config, [StandardScaler()], features)


def _fitted(
    task: Task, examples: Sequence[Example], config: ProbeConfig, before: Sequence[Any], features: Features
) -> Fitted:
    """Return logistic regression behind some transformers, fitted to all examples.

    Nothing is chosen on validation rows here, so those of a run train too.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    classifier = LogisticRegression(C=config.strength, max_iter=1_000, random_state=config.seed)
    pipeline = make_pipeline(*before, classifier)
    pipeline.fit(features(examples), [e.label for e in examples])
    return Fitted(pipeline, features, task)


def _system(fitted: Fitted, experiment: Experiment[ProbeConfig]) -> System:
    numbers = fitted.pipeline[-1].coef_.size + fitted.pipeline[-1].intercept_.size
    return System(fitted, 0, experiment.backbone, trained=numbers, stored=numbers, cards=[experiment.card()])


def labelled(experiment: Experiment[Any]) -> list[Example]:
    """Return all rows whose labels a run may see: those to train on, and those to choose a checkpoint by."""
    (train,), (validation,) = experiment.data.train, experiment.data.validation
    return [*train.examples, *validation.examples]
