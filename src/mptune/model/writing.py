"""What a backbone can write: a target goes through its tokenizer and back, which drops spaces, signs or letters."""

from collections.abc import Sequence

from mptune.model.backbone import Backbone
from mptune.model.chat import Chat
from mptune.model.encoding import Encoded, chat_for, encode_targets
from mptune.tasks.task import Example, Task, named_rows

NO_END = 2**31  # tokens: a target that is not cut


def written(backbone: Backbone, texts: Sequence[str], chat: Chat | None = None) -> dict[str, str]:
    """Return for each text what the backbone writes where it writes that text."""
    distinct = [text for text in dict.fromkeys(texts) if text]
    if not distinct:
        return {}
    ids = encode_targets(backbone, distinct, NO_END, chat)
    back = backbone.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return {text: read.strip() for text, read in zip(distinct, back, strict=True)}


def as_meant(backbone: Backbone, data: Encoded, answers: Sequence[str]) -> list[str]:
    """Return generated answers, each as the label word or right answer that the backbone writes so, where one is.

    What cannot be written at all is met by no answer, and not by silence.
    """
    meant = [data.task.label_words or (e.target, *e.references) for e in data.examples]
    odd = [row for row, answer in enumerate(answers) if answer and answer not in meant[row]]
    back = written(backbone, [text for row in odd for text in meant[row]], data.chat)
    told = list(answers)
    for row in odd:
        told[row] = next((text for text in meant[row] if text and back[text] == answers[row]), answers[row])
    return told


def unwritable(task: Task, examples: Sequence[Example], backbone: Backbone, most: int) -> list[str]:
    """Return what is to be said of targets that are generated, and that come out otherwise, or cut.

    Args:
        most: tokens of a target.
    """
    if task.verbalizer and task.scoring == "labels":
        return []
    rows: dict[str, list[int]] = {word: [] for word in task.label_words}
    for example in examples if not task.verbalizer else ():
        rows.setdefault(example.target, []).append(example.row)
    said = []
    chat = chat_for(task, backbone)
    back = written(backbone, list(rows), chat)
    odd = [text for text, read in back.items() if read != text]
    if odd:
        numbers = sorted(number for text in odd for number in rows[text])
        what = f"the targets of {named_rows(numbers)}" if numbers else "all its label words"
        shown = ", ".join(f"{back[text][:40]!r} for {text[:40]!r}" for text in odd[:3])
        said.append(
            f"{task.name}: {backbone.config.name} cannot write {what} as they stand: {shown}. Answers are compared "
            "with what it can write; where that is nothing, no answer is right"
        )
    lengths = dict(zip(back, map(len, encode_targets(backbone, list(back), NO_END, chat)), strict=True)) if back else {}
    long = sorted(number for text, length in lengths.items() if length > most for number in rows[text])
    if long:
        said.append(
            f"{task.name}: the targets of {named_rows(long)} are longer than {most} tokens and are cut, so that no "
            "answer equals them; take a larger max_target_tokens with --set"
        )
    return said
