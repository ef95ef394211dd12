"""Examples to token ids, once, and token ids to padded batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mptune.backbone import Batch, FrozenBackbone, distinguishing_depth
from mptune.config import TrainingConfig
from mptune.errors import DataError
from mptune.sampling import Pick
from mptune.tasks import Example, Task

SAME_START = 4  # label words that share so many first tokens are refused: ranking them would mean decoding them


@dataclass(frozen=True)
class Encoded:
    """Examples of one task as token ids."""

    task: Task
    examples: tuple[Example, ...]
    inputs: tuple[Sequence[int], ...]
    targets: tuple[list[int], ...]
    label_ids: tuple[list[int], ...]  # of each label word; none for free text


def encode(
    task: Task, examples: Sequence[Example], backbone: FrozenBackbone, config: TrainingConfig, prompt_length: int
) -> Encoded:
    """Return examples as the backbone's token ids, cut to the task's length, else to the configured lengths.

    Raises:
        DataError: two label words that cannot be told apart by their first tokens.
    """
    words = label_ids(task, backbone)
    targets = backbone.encode_targets([e.target for e in examples], config.max_target_tokens) if examples else []
    room = max((len(t) for t in targets), default=1)
    texts = [e.input for e in examples]
    longest = task.max_input_tokens or config.max_input_tokens
    inputs = backbone.encode_inputs(texts, longest, prompt_length, room) if examples else []
    return Encoded(task, tuple(examples), tuple(inputs), tuple(targets), tuple(words))


def label_ids(task: Task, backbone: FrozenBackbone) -> list[list[int]]:
    """Return the token ids of each label word; none for free text.

    Raises:
        DataError: two label words with the same first tokens.
    """
    if not task.verbalizer:
        return []
    words = task.label_words
    ids = backbone.encode_targets(words, max_tokens=64)
    problems = []
    for i, first in enumerate(ids):
        for j, second in enumerate(ids[:i]):
            if distinguishing_depth([first[:SAME_START], second[:SAME_START]]) == 0:
                problems.append(
                    f"the label words {words[j]!r} and {words[i]!r} have the same first tokens in "
                    f"{backbone.config.name}; choose words that differ at their start"
                )
    if problems:
        raise DataError(task.name, problems)
    return ids


def collate(picks: Sequence[Pick], data: Sequence[Encoded], backbone: FrozenBackbone) -> Batch:
    """Return the batch of some (task, row) pairs."""
    return backbone.collate(
        [t for t, _ in picks], [data[t].inputs[i] for t, i in picks], [data[t].targets[i] for t, i in picks]
    )


def by_length(picks: Sequence[Pick], data: Sequence[Encoded], batch_size: int) -> Iterator[list[Pick]]:
    """Yield (task, row) pairs in batches of like input length, so that little is padded."""
    order = sorted(picks, key=lambda pick: (len(data[pick[0]].inputs[pick[1]]), pick))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
