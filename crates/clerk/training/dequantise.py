"""Turns clerk's engine file back into a float checkpoint, for `train.py --start`.

What rounding to int8 took is not given back; the model is the one that the engine runs.
"""

import argparse
import json
import math
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from model import Llama, Shape

# The stream's unit is the importer's choice; this one is that of a fresh training.
EPS = 1e-5
MIXED = 64


def hadamard(size: int) -> Tensor:
    """Sylvester's, orthonormal."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return matrix / math.sqrt(size)


def dequantise(path: Path) -> tuple[Llama, bytes]:
    """The model, and its tokenizer's JSON."""
    with safe_open(path, "pt") as file:
        manifest = json.loads(file.metadata()["dovetail"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    arch = manifest["architecture"]
    model = Llama(Shape(
        vocab_size=arch["vocabulary"], hidden_size=arch["dim"], intermediate_size=arch["hidden_dim"],
        num_hidden_layers=arch["layers"], num_attention_heads=arch["heads"],
        num_key_value_heads=arch["kv_heads"], max_position_embeddings=arch["context_tokens"], rms_norm_eps=EPS,
    ))
    unit = math.sqrt(EPS / (arch["norm_epsilon_q32"] / 2**32))
    weights = {}
    for name, own in model.state_dict().items():
        if "norm" in name:
            # Gains are part of the matrices behind them.
            weights[name] = torch.ones_like(own)
            continue
        bits = tensors[name.replace(".weight", ".scale")].to(torch.int64) & 0xFFFF_FFFF
        scale = (bits & 0xFF_FFFF).double() * 2.0 ** -(23 + (bits >> 24)).double()
        weight = tensors[name].double() * scale[:, None]
        if "down_proj" in name and arch["mixed_down"]:
            weight = (weight.unflatten(1, (-1, MIXED)) @ hadamard(MIXED)).flatten(1)
        if "embed_tokens" in name or "o_proj" in name or "down_proj" in name:
            weight = weight * unit
        weights[name] = weight.float()
    model.load_state_dict(weights)
    return model, bytes(tensors["tokenizer.json"].tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    arguments = parser.parse_args()
    model, tokenizer = dequantise(arguments.model)
    model.save(arguments.out, {})
    (arguments.out / "tokenizer.json").write_bytes(tokenizer)


if __name__ == "__main__":
    main()
