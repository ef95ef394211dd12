"""SPoT: prompt tuning that starts at a source task's prompt."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mptune.comparison.baselines.prompt_tuning import prompt_tuning
from mptune.comparison.systems import Sources, System
from mptune.comparison.trials import Trial
from mptune.config import AdaptConfig, TeachConfig, TrainingConfig
from mptune.prompts.card import Card
from mptune.prompts.prompt import MultitaskPrompt, stack
from mptune.stages.adaptation import adapt


def spot(trial: Trial, sources: Sources) -> list[System]:
    """Prompt tuning from one teacher, the same for every target.

    Source: Vu et al. 2022 (arXiv:2110.07904), generic SPoT.
    """
    settings = trial.contender.settings
    teacher = sources.teacher_of(settings.spot_source or sources.loaded.sources[0].name, settings)
    return _tuned_from(teacher, trial, sources, before=[teacher.card])


def spot_closest(trial: Trial, sources: Sources) -> list[System]:
    """Prompt tuning from the teacher most like the target's own tuned prompt.

    Likeness is the cosine of the prompts' mean soft tokens.

    Source: Vu et al. 2022 (arXiv:2110.07904), targeted SPoT.
    """
    out = trial.out.with_name(f"{trial.out.name}-own") if trial.out is not None else None
    (tuned,) = prompt_tuning(replace(trial, out=out), sources)
    teachers = sources.teachers(trial.contender.settings)
    assert isinstance(tuned.prompt, Tensor)
    likeness = torch.cosine_similarity(stack(teachers).cpu().mean(1), tuned.prompt.cpu().mean(0)[None], dim=-1)  # [K]
    closest = teachers[int(likeness.argmax())]
    before = [*(teacher.card for teacher in teachers), *tuned.cards]
    return _tuned_from(closest, trial, sources, before=before, chosen={"source": closest.tasks[0].name})


def _tuned_from(
    teacher: MultitaskPrompt,
    trial: Trial,
    sources: Sources,
    *,
    before: Sequence[Card],
    chosen: dict[str, Any] | None = None,
) -> list[System]:
    """Return prompt tuning that starts at a teacher; with the budget and rate of prompt tuning from scratch."""
    config: TeachConfig = trial.config
    common = {name: getattr(config, name) for name in TrainingConfig.model_fields}
    update = AdaptConfig(**common, shared_lr=config.lr, initialise="shared", train="shared")
    backbone = sources.backbone(trial.contender.settings)
    prompt = adapt(teacher, trial.targets, backbone, update, out=trial.out)
    trained = prompt.shared.numel()
    return [System.of_prompt(prompt, backbone, trained=trained, out=trial.out, before=before, chosen=chosen)]
