"""Tasks whose answers are scored, and their scores."""

from mptune.answers.metrics import score
from mptune.tasks.task import Example, Task

YES_NO = Task(name="yes-no", template="{text}", verbalizer={"0": "no", "1": "yes"})
THREE = Task(name="three", template="{text}", verbalizer={"0": "red", "1": "green", "2": "blue"})
FREE = Task(name="free", template="{text}", target="{answer}")


def examples_of(*targets: str) -> list[Example]:
    return [Example("any", i, "text", target, None, (target,)) for i, target in enumerate(targets)]


def value(metric: str, targets: str, answers: str, task: Task = YES_NO) -> float:
    """The metric of space-separated label words."""
    task = task.model_copy(update={"metrics": (metric,)})
    (only,) = score(task, "test", examples_of(*targets.split()), answers.split())
    return only.value


def squad(metric: str, *cases: tuple[str, tuple[str, ...]]) -> float:
    """The metric of answers, each with the right ones."""
    examples = [Example("free", i, "text", right[0], None, right) for i, (_, right) in enumerate(cases)]
    (only,) = score(FREE.model_copy(update={"metrics": (metric,)}), "test", examples, [answer for answer, _ in cases])
    return only.value


def correlation(metric, right, answers):
    """A correlation of texts."""
    task = FREE.model_copy(update={"metrics": (metric,)})
    (only,) = score(task, "test", examples_of(*right.split()), answers.split())
    return only.value


def text(metric, *rows):
    """A metric of (answer, right answers)."""
    return squad(metric, *[(answer, tuple(right)) for answer, *right in rows])
