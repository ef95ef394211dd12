"""What begins with a multitask prompt: its adaptation to a target or to a group, and the prompt as it is."""

from mptune.comparison.systems import Sources, System
from mptune.comparison.trials import Trial
from mptune.config import AdaptConfig
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.vectors import compose, mean_of_vectors
from mptune.stages.adaptation import Target
from mptune.stages.ensemble import adapt_by_all_rows


def mpt(trial: Trial, sources: Sources) -> list[System]:
    """One adaptation, of a target or of a group that shares a prompt."""
    config: AdaptConfig = trial.config
    settings, count = trial.contender.settings, len(trial.targets)
    source, backbone = sources.multitask(settings, trial.seed), sources.backbone(settings)
    (adapted,) = adapt_by_all_rows(source, [Target(trial.targets, config, trial.out)], backbone)
    trained, before = trained_numbers(adapted, config), sources.cards(settings, source)
    return [
        System.of_prompt(adapted, backbone, trained=trained, out=trial.out, number=number, before=before)
        for number in range(count)
    ]


def transfer(trial: Trial, sources: Sources) -> list[System]:
    """The multitask prompt with the mean of the source tasks' vectors, as it is."""
    settings = trial.contender.settings
    source = sources.multitask(settings, trial.seed)
    mean = compose(source.shared, mean_of_vectors(source.task_vectors))[0].detach()
    return [System(mean, len(mean), sources.backbone(settings), cards=sources.cards(settings, source))]


def from_source(trial: Trial, sources: Sources) -> list[System]:
    """The multitask prompt as one of its source tasks uses it, for any target."""
    settings = trial.contender.settings
    source = sources.multitask(settings, trial.seed)
    before = [teacher.card for teacher in sources.teachers(settings)]
    number = source.task_number(str(trial.source))
    return [System.of_prompt(source, sources.backbone(settings), number=number, before=before)]


def trained_numbers(prompt: MultitaskPrompt, config: AdaptConfig) -> int:
    """Return how many numbers an adaptation trains: on T5-base 77,668 for one task, 76,800 + 868 a task for a group."""
    vectors = sum(p.numel() for p in (*prompt.u, *prompt.v))
    shared = prompt.shared.numel()
    counts: dict[str, int] = {"all": shared + vectors, "shared": shared, "task-vectors": vectors}
    return counts[config.train]
