"""Logistic regression: on word counts, and on features of the frozen backbone.

What everybody tries first. Where the topic of a text decides, it is hard to beat.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mptune.comparison.config import ProbeConfig
from mptune.comparison.systems import Classifier, Sources, System
from mptune.comparison.trials import Trial
from mptune.config import EvaluateConfig
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
    """Logistic regression on the counts of words and of pairs of words, rare ones weighing more.

    Source: the usual first try; Wang and Manning 2012 (P12-2018) on how far it goes.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    return _fitted("tf-idf", [vectors], trial, sources, lambda _: lambda examples: [e.input for e in examples])


def linear_probe(trial: Trial, sources: Sources) -> list[System]:
    """Logistic regression on what the frozen backbone makes of a text, each feature in units of its spread."""
    from sklearn.preprocessing import StandardScaler

    backbone = sources.backbone(trial.contender.settings)

    def features_of(experiment: Experiment[ProbeConfig]) -> Features:
        task, config = experiment.tasks[0], experiment.config
        return lambda examples: text_features(backbone, encode(task, examples, backbone, config, 0)).numpy()

    return _fitted("linear-probe", [StandardScaler()], trial, sources, features_of)


def _fitted(
    name: str,
    before: Sequence[Any],
    trial: Trial,
    sources: Sources,
    features_of: Callable[[Experiment[ProbeConfig]], Features],
) -> list[System]:
    """Return logistic regression behind some transformers, fitted to all labelled rows.

    Nothing is chosen on validation rows here, so those of a run train too.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    backbone, config = sources.backbone(trial.contender.settings), trial.config
    with Experiment(name, trial.targets, backbone, config, 0, out=None) as experiment:
        examples = labelled(experiment)
        classifier = LogisticRegression(C=config.strength, max_iter=1_000, random_state=config.seed)
        pipeline = make_pipeline(*before, classifier)
        features = features_of(experiment)
        pipeline.fit(features(examples), [e.label for e in examples])
        numbers = classifier.coef_.size + classifier.intercept_.size
        fitted = Fitted(pipeline, features, experiment.tasks[0])
        return [System(fitted, 0, backbone, trained=numbers, stored=numbers, cards=[experiment.card()])]


def labelled(experiment: Experiment[Any]) -> list[Example]:
    """Return all rows whose labels a run may see: those to train on, and those to choose a checkpoint by."""
    (train,), (validation,) = experiment.data.train, experiment.data.validation
    return [*train.examples, *validation.examples]
