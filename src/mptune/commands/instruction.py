"""A written instruction into a soft prompt: what `mptune distill --instruction` does."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mptune.commands.options import named_tasks, names, say_saved
from mptune.errors import DataError, UsageError, reason
from mptune.files import nearest
from mptune.terminal import say, table

if TYPE_CHECKING:
    from mptune import Backbone, DistillConfig, Task, TaskRows

MOSTLY = 0.95  # of all rows: an instruction that answers so many alike tells nothing apart


@dataclass(frozen=True)
class Written:
    """An instruction that somebody has in a file, and the task whose rows it is read before."""

    task: "Task"
    text: str


def written_instruction(
    file: Path, out: Path, rows: Path | None, text: str | None, words: str | None, tasks: str | None
) -> Written:
    """Return the instruction of a file; what is wrong is said before any model is loaded.

    Args:
        out: where the prompt goes, by which a task that nobody has written down is called.
        rows: a file of rows, without labels.
        text, words: column to read and label words, of a task that nobody has written down.
        tasks: the name of one that somebody has.
    """
    from mptune.tasks.guess import task_name, text_task

    if rows is None:
        raise UsageError("--instruction wants --rows: texts like those that will be answered, without labels")
    try:
        written = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(file.name, ["it is no text in UTF-8"], "the instruction cannot be read:") from None
    except OSError as error:
        near = nearest(file) if isinstance(error, FileNotFoundError) else ""
        raise UsageError(f"{file} cannot be read: {reason(error)}{near}") from None
    if not written.strip():
        raise UsageError(f"{file} is empty; write the instruction into it")
    chosen = named_tasks(tasks, "--tasks")
    if len(chosen) > 1 or (chosen and (text or words)):
        raise UsageError("an instruction is of one task: name it with --tasks, or its --text and --words, not both")
    task = chosen[0] if chosen else text_task(rows, task_name(out), names(text, "--text"), names(words, "--words"))
    return Written(task.with_unlabelled(rows), written)


def distill_written(
    written: Written, config: "DistillConfig", out: Path, load: "Callable[[], Backbone]", trackers: Sequence[str]
) -> None:
    """Let the model answer the rows behind the instruction, train the prompt, and say how far it answers alike."""
    from mptune import EvaluateConfig, TaskRows, distill, evaluate
    from mptune.stages.instructions import Instruction, answered_rows
    from mptune.stages.run import first_process, try_out

    instruction, rows = Instruction(written.task, written.text), TaskRows(written.task)
    rows.unlabelled()
    finished = try_out(out, "distill", config)
    model = load()
    answered = answered_rows(instruction, rows, model, config)
    prompt = distill([answered], [instruction], model, config, out=out, report_to=trackers)
    say_saved(out, prompt, finished=finished)
    how = EvaluateConfig(max_input_tokens=config.max_input_tokens, max_target_tokens=config.max_target_tokens)
    scores = evaluate(prompt, answered, model, split="test", config=how)
    if not first_process():
        return
    said = _say_answers(answered)
    lines = [[f"{s.metric} against its answers", f"{s.value:.1f}", f"{s.examples} rows held out"] for s in scores]
    read = len(instruction.tokens(model))
    lines.append(["tokens a request", f"{prompt.prompt_length}", f"in place of {read}"])
    table(["what the instruction taught", "", ""], lines)
    if said:
        say(said, err=True)
    if read <= prompt.prompt_length:
        say(f"the instruction has {read} tokens, and the prompt is no shorter: nothing is saved", err=True)


def _say_answers(answered: "TaskRows") -> str | None:
    """Print how often the instruction gave each answer; return what is to be said of it where it hardly varies."""
    data = answered.data("train", "validation", "test")
    words = Counter(e.target for part in (data.train, data.validation, data.test) for e in part)
    total, (first, most) = words.total(), words.most_common(1)[0]
    if answered.task.verbalizer:
        table(["the instruction answered", "rows"], [[word, words[word]] for word in answered.task.label_words])
    if most < MOSTLY * total:
        return None
    return f"the instruction answers {first!r} to {most} of {total} rows, and that the prompt has learnt; write another"
