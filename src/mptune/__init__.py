"""Multitask prompt tuning: one soft prompt from many source tasks, adapted to a new task with a few examples.

The public names are imported on first use, so that `import mptune` and `mptune --help` are instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mptune.artifacts import Card, MultitaskPrompt
    from mptune.backbone import FrozenBackbone, load_backbone
    from mptune.config import AdaptConfig, BackboneConfig, DistillConfig, EvaluateConfig, TeachConfig
    from mptune.errors import MptuneError
    from mptune.evaluation import evaluate
    from mptune.metrics import Score
    from mptune.prediction import Prediction, Predictor
    from mptune.stages.adaptation import adapt
    from mptune.stages.distillation import distill
    from mptune.stages.teachers import teach
    from mptune.tasks import Task, get_task, load_task

__all__ = [
    "AdaptConfig",
    "BackboneConfig",
    "Card",
    "DistillConfig",
    "EvaluateConfig",
    "FrozenBackbone",
    "MptuneError",
    "MultitaskPrompt",
    "Prediction",
    "Predictor",
    "Score",
    "Task",
    "TeachConfig",
    "adapt",
    "distill",
    "evaluate",
    "get_task",
    "load_backbone",
    "load_task",
    "teach",
]

__version__ = "0.1.0"

_HOME = {
    "artifacts": ("Card", "MultitaskPrompt"),
    "backbone": ("FrozenBackbone", "load_backbone"),
    "config": ("AdaptConfig", "BackboneConfig", "DistillConfig", "EvaluateConfig", "TeachConfig"),
    "errors": ("MptuneError",),
    "evaluation": ("evaluate",),
    "metrics": ("Score",),
    "prediction": ("Prediction", "Predictor"),
    "stages.adaptation": ("adapt",),
    "stages.distillation": ("distill",),
    "stages.teachers": ("teach",),
    "tasks": ("Task", "get_task", "load_task"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'mptune' has no attribute {name!r}")
    return getattr(import_module(f"mptune.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
