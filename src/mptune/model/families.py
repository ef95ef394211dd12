"""Families of models: which are known to read soft prompts rightly, and how any other is asked before it is trusted.

Layers that carry a state over padding, or that want token ids beside embeddings, would answer wrongly and say nothing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mptune.errors import BackboneError, first_line
from mptune.model.backbone import Backbone
from mptune.model.batch import IGNORE, Batch, Output
from mptune.model.scoring import write

# Each was built tiny and found right (docs/families.md, tests/model/test_families.py).
TESTED = frozenset(
    """
    afmoe apertus arcee aria_text axk1 axk2 bailing_hybrid bart beam bert bert-generation big_bird bigbird_pegasus
    biogpt bitnet blenderbot blenderbot-small bloom codegen cohere cohere2 cohere2_moe cwm deepseek_v2 deepseek_v3
    deepseek_v32 diffllama doge dots1 electra ernie ernie4_5 ernie4_5_moe exaone4 exaone_moe falcon falcon_mamba
    flex_olmo flint gemma gemma2 gemma3_text gemma4_unified_text glm glm4 glm4_moe glm4_moe_lite glm_moe_dsa gpt-sw3
    gpt2 gpt_bigcode gpt_neo gpt_neox gpt_neox_japanese gpt_oss gptj granite granite_swa granitemoe granitemoe_swa
    granitemoehybrid granitemoeshared helium hunyuan_v1_dense hunyuan_v1_moe hy_v3 hy_v4 hyperclovax inkling2_text
    inkling_text internlm3 iquestcoder jais2 jamba jetmoe kimi_linear kolibri1 laguna led lfm2 lfm2_moe lfm3 llama
    llama4_text longcat_flash longt5 m2m_100 mamba mamba2 marian mbart megatron-bert mellum mimo_v2_flash minicpm3
    minimax minimax_m2 minimax_m3_vl_text ministral ministral3 mistral mixtral modernbert-decoder mpt mt5 mvp nanochat
    nemotron nllb-moe olmo olmo2 olmo3 olmo_hybrid olmoe opt pegasus pegasus_x persimmon phi phi3 phimoe plbart qwen2
    qwen2_moe qwen3 qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next rembert seamless_m4t seamless_m4t_v2 seed_oss
    smollm3 solar_open stablelm starcoder2 switch_transformers t5 t5gemma umt5 vaultgemma xglm youtu zaya
    """.split()  # noqa: SIM905 (a list has a line for each)
)
LENGTHS, ROOMS, PROMPT, WRITTEN = (3, 13), (3, 2), 5, 4  # tokens of two unlike rows, and of what is before and behind
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}  # of the largest logit; of other types, what rounding does
ROUNDING = 0.1


def check_family(backbone: Backbone) -> None:
    """Ask a model of a family that is on no list whether it reads soft prompts as it reads text.

    Raises:
        BackboneError: it does not, and any answer of it could be wrong.
    """
    family = backbone.model.config.model_type
    if family in TESTED:
        _refuse_useless(backbone)
        return
    if fault := reading_fault(backbone):
        raise BackboneError(
            f"{backbone.config.name} is of the family {family!r}, which cannot be used with soft prompts: {fault}. "
            "Take a model of another family; docs/families.md has a list."
        )


@torch.no_grad()
def _refuse_useless(backbone: Backbone) -> None:
    """Raise BackboneError where a text cannot be read: what a stranger's configuration says may be met only then."""
    try:
        text = backbone.tokenizer(["a text"], verbose=False)["input_ids"][0][:4]
        _own_logits(backbone, text, [0])
    except Exception as error:  # whatever a model's own code may raise
        raise BackboneError(
            f"the backbone {backbone.config.name!r} cannot read a text: {type(error).__name__} "
            f"({first_line(error)[:200]}). Download or save it again."
        ) from error


@torch.no_grad()
def reading_fault(backbone: Backbone) -> str | None:
    """Return what a model does wrongly with two rows of random tokens; None where it does everything rightly."""
    try:
        random = torch.Generator().manual_seed(0)
        most = min(backbone.vocabulary, len(backbone.embeddings), len(backbone.tokenizer))
        draw = [torch.randint(most, (n,), generator=random).tolist() for n in (*LENGTHS, *ROOMS, 2 * PROMPT)]
        texts, labels = draw[:2], draw[2:4]
        nothing = torch.zeros(1, 0, backbone.width, device=backbone.device)
        # Between tokens, where soft tokens are: Gemma 4 looks up which token an embedding is.
        soft = backbone.embeddings[draw[4]].float().view(1, PROMPT, 2, -1).mean(2)
        for text, label in zip(texts, labels, strict=True):
            if not _near(_own_logits(backbone, text, label), backbone(nothing, _batch(backbone, [text], [label]))):
                return "with embeddings it answers otherwise than with the same tokens"
        alone = [backbone(soft, _batch(backbone, [t], [s])) for t, s in zip(texts, labels, strict=True)]
        together = backbone(soft, _batch(backbone, texts, labels))
        for row, (own, label) in enumerate(zip(alone, labels, strict=True)):
            if not _near(own.logits[0], Output(together.logits[row : row + 1, : len(label)])):
                return "a row is answered otherwise when a longer one stands beside it"
        return _writing_fault(backbone, soft, texts)
    except Exception as error:  # whatever a model's own code may raise
        return f"it fails with {type(error).__name__} ({first_line(error).partition('. ')[0]})"


def _writing_fault(backbone: Backbone, soft: Tensor, texts: Sequence[list[int]]) -> str | None:
    if getattr(backbone.model.generation_config, "bad_words_ids", None):
        return None  # what is written is then not the likeliest token
    for rows in (texts, *([text] for text in texts)):
        ids = write(backbone, soft, _batch(backbone, rows, [[0]] * len(rows)), WRITTEN)
        said = ids[:, 1:] if backbone.is_encoder_decoder else ids  # a decoder's start stands first
        ended = (said == backbone.tokenizer.eos_token_id).cumsum(1)
        counted = ended - (said == backbone.tokenizer.eos_token_id).long() == 0  # up to its end, and with it
        batch = _batch(backbone, rows, said.masked_fill(~counted, IGNORE).tolist())
        logits = backbone(soft, batch).logits.float()
        least = logits.amax(-1) - _slack(backbone.dtype, logits)
        if (logits.gather(-1, said[..., None])[..., 0] < least)[counted].any():
            return "what it writes is not what it finds likeliest"
    return None


def _batch(backbone: Backbone, texts: Sequence[list[int]], labels: Sequence[list[int]]) -> Batch:
    """Return rows of token ids as a batch of one task."""
    width, room = max(map(len, texts)), max(map(len, labels))
    left = not backbone.is_encoder_decoder
    pads = [[0] * (width - len(text)) for text in texts]
    ids = [p + t if left else t + p for p, t in zip(pads, texts, strict=True)]
    mask = [p + [1] * len(t) if left else [1] * len(t) + p for p, t in zip(pads, texts, strict=True)]
    padded = torch.tensor([label + [IGNORE] * (room - len(label)) for label in labels])
    return Batch.of_tasks([0] * len(texts), torch.tensor(ids), torch.tensor(mask), padded).to(backbone.device)


def _own_logits(backbone: Backbone, text: list[int], label: list[int]) -> Tensor:
    """Return the logits that the model itself has for a label behind a text, asked with token ids. [S, V]"""
    ids = torch.tensor([text], device=backbone.device)
    labels = torch.tensor([label], device=backbone.device)
    if not backbone.is_encoder_decoder:
        logits: Tensor = backbone.model(input_ids=torch.cat([ids, labels], 1), use_cache=False).logits[0]
        return logits[len(text) - 1 : -1]
    start = torch.full_like(labels[:, :1], backbone.start_token)
    shifted = torch.cat([start, labels[:, :-1]], 1)
    own: Tensor = backbone.model(
        input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=shifted, use_cache=False
    ).logits[0]
    return own


def _near(own: Tensor, found: Output) -> bool:
    """Return whether two ways gave the same logits. [S, V], [1, S, V]"""
    difference = (own.float() - found.logits[0].float()).abs().max()
    return bool(difference <= _slack(own.dtype, own.float()))  # nothing that is not a number is near


def _slack(dtype: torch.dtype, logits: Tensor) -> float:
    return TOLERANCE.get(dtype, ROUNDING) * max(1.0, float(logits.abs().max()))
