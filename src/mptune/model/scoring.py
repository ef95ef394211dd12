"""What a backbone answers: how likely each label word is, or the text that it writes."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mptune.model.backbone import Backbone
from mptune.model.batch import IGNORE, Batch
from mptune.model.encoding import distinguishing_depth, pad


@torch.no_grad()
def label_scores(backbone: Backbone, prompts: Tensor, batch: Batch, label_ids: Sequence[Sequence[list[int]]]) -> Tensor:
    """Return the log-probability of every label word, over as many of its tokens as tell a row's words apart.

    Rows of different tasks may stand together. Every word is read behind the tokens before its last telling one;
    most tasks' words differ at once, and then there is nothing before it, and one pass for all of them.

    Args:
        prompts: of the batch's tasks. [K, L, D]
        label_ids: each row's label words, each word's tokens with its end. B lists of C lists

    Returns:
        Scores, comparable within a row; -inf where a row has fewer words than another. [B, C]
    """
    depths = [distinguishing_depth(words) for words in label_ids]
    behind = [
        list(dict.fromkeys(tuple(ids[: depth - 1]) for ids in words))
        for words, depth in zip(label_ids, depths, strict=True)
    ]
    missing = torch.arange(max(map(len, label_ids))) >= torch.tensor([[len(words)] for words in label_ids])
    scores = torch.zeros(missing.shape).masked_fill(missing, -torch.inf).to(backbone.device)
    for turn in range(max(map(len, behind))):
        rows = [row for row, prefixes in enumerate(behind) if turn < len(prefixes)]
        # These labels only feed the decoder; the value of the last position is never read.
        labels = pad([[*behind[row][turn], 0] for row in rows], IGNORE).to(backbone.device)
        logits = backbone(prompts, _with_labels(batch, rows, labels)).logits
        log_odds = logits.float().log_softmax(-1)
        terms = [
            (i, spot, token, row, column)
            for i, row in enumerate(rows)
            for column, ids in enumerate(label_ids[row])
            if tuple(ids[: depths[row] - 1]) == behind[row][turn]
            for spot, token in enumerate(ids[: depths[row]])
        ]
        *of_log_odds, to_row, to_column = torch.tensor(terms, device=backbone.device).unbind(1)
        scores.index_put_((to_row, to_column), log_odds[tuple(of_log_odds)], accumulate=True)
    return scores


@torch.no_grad()
def generate(backbone: Backbone, prompts: Tensor, batch: Batch, max_new_tokens: int, num_beams: int = 1) -> list[str]:
    """Return the text that greedy (or beam) search writes for each example.

    Args:
        prompts: of the batch's tasks. [K, L, D]
    """
    embedded, mask = backbone.prompted(prompts, batch)
    ids = backbone.model.generate(
        **backbone.encoded(embedded, mask),
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        num_beams=num_beams,
        do_sample=False,
        pad_token_id=backbone.tokenizer.pad_token_id,
        eos_token_id=backbone.tokenizer.eos_token_id,
        decoder_start_token_id=backbone.start_token if backbone.is_encoder_decoder else None,
    )
    texts: list[str] = backbone.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [t.strip() for t in texts]


def _with_labels(batch: Batch, rows: Sequence[int], labels: Tensor) -> Batch:
    """Return some rows of a batch, with other labels."""
    added = None if batch.added is None else batch.added[rows]
    ids, inputs, mask = batch.task_ids[rows], batch.input_ids[rows], batch.mask[rows]
    return replace(batch, task_ids=ids, input_ids=inputs, mask=mask, labels=labels, added=added)
