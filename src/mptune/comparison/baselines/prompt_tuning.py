"""Prompt tuning: a prompt from a sample of the vocabulary. It is stage 1, on the target."""

from mptune.comparison.systems import Sources, System
from mptune.comparison.trials import Trial
from mptune.stages.teachers import teach


def prompt_tuning(trial: Trial, sources: Sources) -> list[System]:
    """A prompt from scratch.

    Source: Lester et al. 2021 (arXiv:2104.08691).
    """
    (rows,), backbone = trial.targets, sources.backbone(trial.contender.settings)
    prompt = teach(rows, backbone, trial.config, out=trial.out)
    return [System.of_prompt(prompt, backbone, trained=prompt.shared.numel(), out=trial.out)]
