"""Every family of language models that the installed transformers can build tiny."""

import inspect

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)
from transformers.pytorch_utils import Conv1D

from mptune.config import BackboneConfig
from mptune.model.backbone import Backbone
from support.models import VOCABULARY, make_tokenizer

NAMES = sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES})
# What families call their sizes. Windows are so small that rows of a dozen tokens leave them.
SIZES = {
    VOCABULARY: "vocab_size decoder_vocab_size src_vocab_size tgt_vocab_size text_vocab_size "
    "vocab_size_per_layer_input",
    64: "max_position_embeddings n_positions max_seq_len max_sequence_length n_ctx max_target_positions "
    "max_source_positions max_encoder_position_embeddings max_decoder_position_embeddings",
    32: "hidden_size d_model n_embd dim dim_model attention_hidden_size intermediate_size ffn_dim d_ff encoder_ffn_dim "
    "decoder_ffn_dim n_inner moe_intermediate_size shared_expert_intermediate_size intermediate_size_mlp d_inner "
    "word_embed_proj_dim embedding_size feed_forward_size emb_dim lru_width kv_lora_rank q_lora_rank qkv_dim "
    "moe_shared_expert_intermediate_size block_ff_dim shared_intermediate_size mlp_hidden_size dim_ff dff",
    8: "head_dim d_kv dim_head v_head_dim qk_rope_head_dim qk_nope_head_dim linear_key_head_dim linear_value_head_dim "
    "kv_channels rotary_dim hidden_size_per_layer_input mamba_d_state state_size mamba_head_dim attention_head_dim "
    "num_mem_blocks mamba_d_head ssm_state_size global_head_dim index_head_dim d_state",
    4: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_encoder_layers "
    "num_decoder_layers num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads "
    "num_encoder_attention_heads num_decoder_attention_heads sliding_window attention_chunk_size window_size "
    "attention_window_size num_experts num_local_experts n_routed_experts moe_num_experts linear_num_value_heads "
    "linear_num_key_heads num_blocks mamba_n_heads index_n_heads",
    2: "num_key_value_heads num_experts_per_tok top_k num_experts_per_token moe_top_k moe_topk",
    1: "n_group topk_group n_groups mamba_n_groups n_shared_experts mamba_expand first_k_dense_replace",
    0.3: "initializer_range init_std",
}
# Where these sizes do not go together, or a default names none of the layers that the family is known for.
_LATENT = dict(num_key_value_heads=4)  # of attention over compressed keys: all heads read all of them
_PART = dict(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=32, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, sliding_window=4, bos_token_id=3, eos_token_id=1, pad_token_id=0,
)  # fmt: skip
OTHER: dict[str, dict] = {
    **dict.fromkeys(
        "axk1 axk2 deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa longcat_flash minicpm3 youtu".split(),
        _LATENT,
    ),
    "bailing_hybrid": dict(layer_group_size=2, num_key_value_heads=4),
    "falcon": dict(head_dim=None),
    "falcon_h1": dict(mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8),
    "gpt_neo": dict(attention_types=[[["global", "local"], 2]]),
    "granitemoehybrid": dict(layer_types=["mamba", "attention"] * 2, mamba_expand=1, mamba_d_head=8),
    "jamba": dict(attn_layer_period=2, attn_layer_offset=1),
    "led": dict(attention_window=4, max_encoder_position_embeddings=64),
    "lfm2_moe": dict(layer_types=["conv", "full_attention"] * 2),
    "mamba2": dict(expand=1, num_heads=4, head_dim=8),
    "prophetnet": dict(num_hidden_layers=None),
    "reformer": dict(axial_pos_embds_dim=[16, 16], axial_pos_shape=[8, 8]),
    "qwen2": dict(use_sliding_window=True, max_window_layers=2),
    "qwen3": dict(use_sliding_window=True, max_window_layers=2),
    "t5gemma": dict(encoder=_PART, decoder=_PART),
    "xlnet": dict(max_position_embeddings=None),
    "xlstm": dict(v_head_dim=None),
    "dbrx": dict(attn_config=dict(kv_n_heads=2), ffn_config=dict(ffn_hidden_size=32, moe_num_experts=4, moe_top_k=2)),
    "gemma3n_text": dict(
        num_kv_shared_layers=1,
        layer_types=["sliding_attention", "full_attention"] * 2,
        num_key_value_heads=2,
        activation_sparsity_pattern=[0.0] * 4,
    ),
    "gemma4_text": dict(head_dim=None, num_key_value_heads=None, num_kv_shared_layers=0, global_head_dim=8),
    "kimi_linear": dict(layer_types=["linear_attention", "full_attention"] * 2, num_key_value_heads=4),
    "zamba2": dict(layer_types=["mamba", "hybrid"] * 2),
    "zaya": dict(num_experts_per_tok=1),
}
LARGEST = 20_000_000  # parameters
SPECIAL = dict(bos_token_id=3, eos_token_id=1, pad_token_id=0, decoder_start_token_id=1)


class Unbuildable(Exception):
    """Why a family cannot be built tiny."""


def tiny_model(name):
    """A random model of a family, of a few layers."""
    kind = CONFIG_MAPPING[name]
    known = {*inspect.signature(kind).parameters, *kind.attribute_map}
    sizes = {field: size for size, fields in SIZES.items() for field in fields.split() if field in known}
    sizes |= SPECIAL | OTHER.get(name, {})
    config = kind(**{field: size for field, size in sizes.items() if size is not None})
    for field, value in SPECIAL.items():
        setattr(config, field, value)
    if hasattr(config, "text_config") or hasattr(config, "audio_config"):
        raise Unbuildable("reads more than text")
    torch.manual_seed(0)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    if not config.is_encoder_decoder and hasattr(config, "is_decoder"):
        config.is_decoder = True
    with torch.device("meta"):
        size = auto.from_config(config).num_parameters()
    if size > LARGEST:
        raise Unbuildable(f"has {size} parameters")
    model = auto.from_config(config)
    for module in model.modules():  # with small weights attention is uniform, and a wrong place hardly matters
        if isinstance(module, nn.Linear | nn.Embedding | Conv1D):
            module.weight.data.normal_(0, 0.3)
    for parameter in model.parameters():  # and what is multiplied by zero would not be seen at all
        if not parameter.any():
            parameter.data.normal_(0, 0.3)
    return model.float()


def tiny_backbone(name):
    """A backbone around a random model of a family."""
    model = tiny_model(name)
    tokenizer = make_tokenizer(adds_eos=bool(model.config.is_encoder_decoder))
    return Backbone(model, tokenizer, BackboneConfig(name=f"tiny-{name}", device="cpu"))
