"""Turns the GGUF file of a Llama-shaped model into a Hugging Face folder, the base that `lora.py` trains on.

    pip install gguf==0.19.0
    python base.py SmolLM2-135M-Instruct.Q4_1.gguf --out smollm2

It knows the byte-level BPE tokenizer that SmolLM2 has (`smollm`), and no other. What rounding took is not given back: the
adapter is trained on the weights that the engine will run.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
CONTROL = 3


def name_of(name: str) -> str:
    parts = name.removesuffix(".weight").split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{NAMES[parts[2]]}.weight"
    return f"{NAMES[parts[0]]}.weight"


def unturned(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q and k in halves, as Hugging Face has them; GGUF has them in pairs."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    arguments = parser.parse_args()
    reader = GGUFReader(arguments.gguf)
    arguments.out.mkdir(parents=True, exist_ok=True)

    def value(key: str):
        return reader.fields[key].contents()

    if value("general.architecture") != "llama" or value("tokenizer.ggml.pre") != "smollm":
        raise SystemExit("only llama models with the tokenizer smollm")
    heads, kv_heads = value("llama.attention.head_count"), value("llama.attention.head_count_kv")
    state = {}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        name = name_of(tensor.name)
        if "q_proj" in name or "k_proj" in name:
            weight = unturned(weight, heads if "q_proj" in name else kv_heads)
        state[name] = torch.from_numpy(np.ascontiguousarray(weight))
    save_file(state, arguments.out / "model.safetensors", metadata={"format": "pt"})
    width = value("llama.embedding_length")
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": len(value("tokenizer.ggml.tokens")),
        "hidden_size": width, "intermediate_size": value("llama.feed_forward_length"),
        "num_hidden_layers": value("llama.block_count"), "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "max_position_embeddings": value("llama.context_length"), "head_dim": width // heads,
        "rms_norm_eps": float(value("llama.attention.layer_norm_rms_epsilon")), "rope_theta": float(value("llama.rope.freq_base")),
        "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": "lm_head.weight" not in state,
        "bos_token_id": value("tokenizer.ggml.bos_token_id"), "eos_token_id": value("tokenizer.ggml.eos_token_id"),
    }
    (arguments.out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokenizer(value).save(str(arguments.out / "tokenizer.json"))


def tokenizer(value) -> Tokenizer:
    tokens, kinds = value("tokenizer.ggml.tokens"), value("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in value("tokenizer.ggml.merges")]
    made = Tokenizer(models.BPE({token: id for id, token in enumerate(tokens)}, merges))
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([
        AddedToken(token, special=True, normalized=False) for token, kind in zip(tokens, kinds) if kind == CONTROL
    ])
    return made


if __name__ == "__main__":
    main()
