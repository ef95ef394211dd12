"""Multitask prompt tuning: one soft prompt from many source tasks, adapted to a new task with a few examples.

The public names are imported on first use, so that `import mptune` and `mptune --help` are instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mptune.answers.evaluation import evaluate
    from mptune.answers.metrics import Score
    from mptune.answers.prediction import Prediction, Predictor
    from mptune.config import AdaptConfig, BackboneConfig, DistillConfig, EvaluateConfig, TeachConfig
    from mptune.errors import MptuneError
    from mptune.model.backbone import Backbone
    from mptune.model.loading import load_backbone
    from mptune.prompts.card import Card
    from mptune.prompts.prompt import MultitaskPrompt
    from mptune.stages.adaptation import adapt
    from mptune.stages.classifier import PromptClassifier
    from mptune.stages.distillation import distill
    from mptune.stages.instructions import Instruction, answered_rows
    from mptune.stages.teachers import teach
    from mptune.tasks.data import TaskRows
    from mptune.tasks.registry import get_task, load_task
    from mptune.tasks.task import Task

__all__ = [
    "AdaptConfig",
    "Backbone",
    "BackboneConfig",
    "Card",
    "DistillConfig",
    "EvaluateConfig",
    "Instruction",
    "MptuneError",
    "MultitaskPrompt",
    "Prediction",
    "Predictor",
    "PromptClassifier",
    "Score",
    "Task",
    "TaskRows",
    "TeachConfig",
    "adapt",
    "answered_rows",
    "distill",
    "evaluate",
    "get_task",
    "load_backbone",
    "load_task",
    "teach",
]

__version__ = "0.1.0"

_HOME = {
    "answers.evaluation": ("evaluate",),
    "answers.metrics": ("Score",),
    "answers.prediction": ("Prediction", "Predictor"),
    "config": ("AdaptConfig", "BackboneConfig", "DistillConfig", "EvaluateConfig", "TeachConfig"),
    "errors": ("MptuneError",),
    "model.backbone": ("Backbone",),
    "model.loading": ("load_backbone",),
    "prompts.card": ("Card",),
    "prompts.prompt": ("MultitaskPrompt",),
    "stages.adaptation": ("adapt",),
    "stages.classifier": ("PromptClassifier",),
    "stages.distillation": ("distill",),
    "stages.instructions": ("Instruction", "answered_rows"),
    "stages.teachers": ("teach",),
    "tasks.data": ("TaskRows",),
    "tasks.registry": ("get_task", "load_task"),
    "tasks.task": ("Task",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'mptune' has no attribute {name!r}")
    return getattr(import_module(f"mptune.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
