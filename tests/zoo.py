"""Tiny models of every family: two layers, four heads, a vocabulary of the tests' tokenizer."""

from __future__ import annotations

from typing import Any

ENCODER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
BOTH = {
    "d_model": 16,
    **{f"{stream}_{what}": size for stream in ("encoder", "decoder") for what, size in
       {"layers": 2, "attention_heads": 4, "ffn_dim": 24}.items()},
}  # fmt: skip
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
TURNED = {**IDS, "decoder_start_token_id": 0, "forced_eos_token_id": None}
PLACES = {"max_position_embeddings": 128}
GROUPED = {**ENCODER, **PLACES, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 6}
DISENTANGLED = {
    **ENCODER,
    "max_position_embeddings": 16,
    "relative_attention": True,
    "position_buckets": 4,
    "pos_att_type": ["p2c", "c2p"],
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
}

ZOO: dict[str, tuple[str, dict[str, Any]]] = {
    "electra": ("ElectraForSequenceClassification", {**ENCODER, **PLACES, "embedding_size": 8}),
    "roberta": ("RobertaForSequenceClassification", {**ENCODER, **PLACES}),
    "deberta": ("DebertaV2ForSequenceClassification", {**DISENTANGLED, "share_att_key": True}),
    "deberta-apart": ("DebertaV2ForMaskedLM", {**DISENTANGLED, "share_att_key": False}),
    "bart": ("BartForConditionalGeneration", {**BOTH, **PLACES, **TURNED}),
    "bart-decoder": ("BartForCausalLM", {**BOTH, **PLACES, **TURNED}),
    "pegasus": ("PegasusForConditionalGeneration", {**BOTH, **PLACES, **TURNED}),
    "marian": ("MarianMTModel", {**BOTH, **PLACES, **TURNED}),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_inner": 24, "n_positions": 128, **IDS}),
    "llama": ("LlamaForCausalLM", {**GROUPED, "attention_bias": True, "mlp_bias": True, **IDS}),
    "mistral": ("MistralForCausalLM", {**GROUPED, "head_dim": None, "sliding_window": 4, **IDS}),
    "qwen2": ("Qwen2ForCausalLM", {**GROUPED, "head_dim": None, **IDS}),
    "qwen3": ("Qwen3ForCausalLM", {**GROUPED, **IDS}),
    "opt": ("OPTForCausalLM", {**ENCODER, "intermediate_size": None, "ffn_dim": 24, "word_embed_proj_dim": 16, **IDS}),
    "opt-post": (
        "OPTForCausalLM",
        {**ENCODER, "ffn_dim": 24, "word_embed_proj_dim": 8, "do_layer_norm_before": False, **IDS},
    ),
}
"""Name -> (architecture, its configuration)."""

COUSINS: dict[str, tuple[str, dict[str, Any]]] = {
    "xlm-roberta": ("XLMRobertaForMaskedLM", {**ENCODER, **PLACES}),
    "camembert": ("CamembertModel", {**ENCODER, **PLACES}),
    "plbart": ("PLBartForConditionalGeneration", {**BOTH, **PLACES, **TURNED}),
    "blenderbot-small": ("BlenderbotSmallForConditionalGeneration", {**BOTH, **PLACES, **TURNED}),
    "blenderbot": ("BlenderbotForConditionalGeneration", {**BOTH, **PLACES, **TURNED}),
    "mbart": ("MBartModel", {**BOTH, **PLACES, **TURNED}),
    "m2m_100": ("M2M100ForConditionalGeneration", {**BOTH, **PLACES, **TURNED}),
    "gemma": ("GemmaForCausalLM", {**GROUPED, **IDS}),
    "granite": ("GraniteForCausalLM", {**GROUPED, "head_dim": None, "mlp_bias": True, **IDS}),
    "smollm3": ("SmolLM3Model", {**GROUPED, "head_dim": None, "attention_bias": True, **IDS}),
    "gpt2-body": ("GPT2Model", {"n_embd": 16, "n_layer": 1, "n_head": 4, **IDS}),
    "gpt2-two-heads": ("GPT2DoubleHeadsModel", {"n_embd": 16, "n_layer": 1, "n_head": 4, **IDS}),
    "opt-body": ("OPTModel", {**ENCODER, "ffn_dim": 24, "word_embed_proj_dim": 16, "enable_bias": False, **IDS}),
    "qwen2-classes": ("Qwen2ForSequenceClassification", {**GROUPED, "head_dim": None, **IDS}),
}
"""Further model types and architectures that the families' tables serve; looked at without weights."""

OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bloom": ("BloomForCausalLM", {"hidden_size": 16, "n_layer": 2, "n_head": 4, **IDS}),
    "gptj": ("GPTJForCausalLM", {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 128, "rotary_dim": 2, **IDS}),
}
"""Models of no family's table."""


def make_config(architecture: str, settings: dict[str, Any], vocabulary: int) -> Any:
    """The configuration object of ``architecture``."""
    import transformers

    kind = getattr(transformers, architecture).config_class
    return kind(vocab_size=vocabulary, **{key: value for key, value in settings.items() if value is not None})
