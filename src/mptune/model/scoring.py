"""What a backbone answers: how likely each label word is, or the text that it writes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mptune.model.backbone import Backbone
from mptune.model.batch import IGNORE, Batch
from mptune.model.encoding import Encoded, by_length, collate, distinguishing_depth, pad

READ_AT_ONCE = 256  # first tokens of label words in one pass: their logits are 32,128 wide in T5


@dataclass(frozen=True)
class LabelWords:
    """A task's label words by what is read before the last token that tells them apart."""

    depth: int  # tokens by which all words differ
    terms: dict[tuple[int, ...], list[tuple[int, int, int]]]  # first tokens to place, token and word of each log-odds

    @classmethod
    def of(cls, words: Sequence[Sequence[int]]) -> "LabelWords":
        """Return the label words of a task, given as their tokens."""
        depth = distinguishing_depth(words) if words else 1
        terms: dict[tuple[int, ...], list[tuple[int, int, int]]] = {}
        for column, ids in enumerate(words):
            behind = terms.setdefault(tuple(ids[: depth - 1]), [])
            behind += [(spot, token, column) for spot, token in enumerate(ids[:depth])]
        return cls(depth, terms)


def label_scores(backbone: Backbone, prompts: Tensor, batch: Batch, logits: Tensor | None = None) -> Tensor:
    """Return the log-probability of every label word, over as many of its tokens as tell a row's words apart.

    Rows of different tasks may stand together. Every word is read behind the tokens before its last telling one;
    most tasks' words differ at once, and then there is nothing before it. Many words share passes.

    Args:
        prompts: of the batch's tasks. [K, L, D]
        batch: whose ``choices`` are each row's label words.
        logits: the backbone's of this batch, where they are known: they hold the words that begin as the row's label
            does, so that where all differ at once no further pass is needed. [B, S, V]

    Returns:
        Scores, comparable within a row; -inf where a row has fewer words than another. [B, C]
    """
    of_task = {id(words): words for words in batch.choices}  # rows of a task share theirs
    ordered = {task: LabelWords.of(words) for task, words in of_task.items()}
    of_row = [ordered[id(words)] for words in batch.choices]
    behind = [list(each.terms) for each in of_row]
    missing = torch.arange(max(map(len, batch.choices))) >= torch.tensor([[len(words)] for words in batch.choices])
    scores = torch.zeros(missing.shape).masked_fill(missing, -torch.inf).to(backbone.device)

    def with_words(scores: Tensor, logits: Tensor, read: Sequence[tuple[int, tuple[int, ...]]]) -> Tensor:
        """Add the words of rows behind these first tokens, of which the logits are. [n, S, V]"""
        terms = [(i, row, *term) for i, (row, prefix) in enumerate(read) for term in of_row[row].terms[prefix]]
        of_read, to_row, spots, tokens, columns = torch.tensor(terms).to(logits.device).unbind(1)
        log_odds = logits.float().log_softmax(-1)
        return scores.index_put((to_row, columns), log_odds[of_read, spots, tokens], accumulate=True)

    if logits is not None:
        own = [tuple(row[: each.depth - 1]) for row, each in zip(batch.labels.tolist(), of_row, strict=True)]
        known = [(row, prefix) for row, prefix in enumerate(own) if prefix in behind[row]]
        if known:
            scores = with_words(scores, logits[[row for row, _ in known]], known)
        for row, prefix in known:
            behind[row].remove(prefix)
    left = [(row, prefix) for row, prefixes in enumerate(behind) for prefix in prefixes]
    at_once = READ_AT_ONCE if backbone.packed is not None else max(1, len(behind))  # others read a text for each
    for start in range(0, len(left), at_once):
        read = left[start : start + at_once]
        # These labels only feed the decoder; the value of the last position is never read.
        labels = pad([[*prefix, 0] for _, prefix in read], IGNORE).to(backbone.device)
        part = batch.behind([row for row, _ in read], labels)
        part = replace(part, choices=[batch.choices[row] for row, _ in read])  # whose logits are to be exact
        scores = with_words(scores, backbone(prompts, part).logits, read)
    return scores


@torch.no_grad()
def text_features(backbone: Backbone, data: Encoded, batch_size: int = 32) -> Tensor:
    """Return what the bare backbone makes of each text: the mean of an encoder's last states, or a decoder's last one.

    Returns:
        Float32, on the processor. [N, D]
    """
    features = torch.zeros(len(data.inputs), backbone.width)
    nothing = torch.zeros(1, 0, backbone.width, device=backbone.device)
    for picks in by_length([(0, row) for row in range(len(data.inputs))], [data], batch_size):
        batch = collate(picks, [data], backbone)
        states = backbone(nothing, batch, hidden_layers=(-1,)).hidden[0].float()  # [B, T, D]
        mask = batch.mask[..., None]
        of_text = (states * mask).sum(1) / mask.sum(1) if backbone.is_encoder_decoder else states[:, -1]
        features[[row for _, row in picks]] = of_text.cpu()
    return features


@torch.no_grad()
def generate(
    backbone: Backbone, prompts: Tensor, batch: Batch, max_new_tokens: int, num_beams: int = 1, stop: str | None = None
) -> list[str]:
    """Return the text that greedy (or beam) search writes for each example.

    Args:
        prompts: of the batch's tasks. [K, L, D]
        stop: before which a text ends.
    """
    ids = write(backbone, prompts, batch, max_new_tokens, num_beams, stop)
    texts: list[str] = backbone.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [(t if stop is None else t.partition(stop)[0]).strip() for t in texts]


@torch.no_grad()
def write(
    backbone: Backbone, prompts: Tensor, batch: Batch, max_new_tokens: int, num_beams: int = 1, stop: str | None = None
) -> Tensor:
    """Return the token ids that greedy (or beam) search writes for each example; a decoder's start stands first. [B, S]

    Args:
        prompts: of the batch's tasks. [K, L, D]
        stop: characters behind which a row is written no further.
    """
    embedded, mask = backbone.prompted(backbone.begun(prompts, batch.chat), batch)

    def said(ids: Tensor, _: Tensor) -> Tensor:
        """Return which rows hold what stops them; `stop_strings` misses it in the midst of a longer token."""
        texts = backbone.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return torch.tensor([str(stop) in text for text in texts], device=ids.device)

    ends = {int(backbone.tokenizer.eos_token_id), *([batch.chat.end] if batch.chat else [])}
    ids: Tensor = backbone.model.generate(
        **backbone.encoded(embedded, mask),
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        num_beams=num_beams,
        do_sample=False,
        pad_token_id=backbone.tokenizer.pad_token_id,
        eos_token_id=sorted(ends),
        decoder_start_token_id=backbone.start_token if backbone.is_encoder_decoder else None,
        stopping_criteria=[said] if stop else None,
    )
    return ids
