"""Computes crates/models/tests/golden/logits.json: what PyTorch says to the checkpoints that the tests make.

    DOVETAIL_GOLDEN_DIR=/tmp/golden cargo test -p dovetail-models --test golden -- --ignored
    pip install torch transformers safetensors        # logits.json: torch 2.15.0, transformers 5.24.0
    python crates/models/tests/golden/pytorch.py /tmp/golden > crates/models/tests/golden/logits.json

Each folder of /tmp/golden holds a checkpoint and tokens.json. The models run in 32-bit floats with plain
attention; the logits of the last positions are printed. Any other checkpoint is compared in the same way: put a
tokens.json beside it, and then

    DOVETAIL_GOLDEN_DIR=DIR DOVETAIL_GOLDEN_LOGITS=FILE cargo test -p dovetail-models --test golden other -- --ignored
"""

import json
import pathlib
import sys

import torch
import transformers

POSITIONS = 4


def logits(folder):
    config = json.loads((folder / "config.json").read_text())
    family = getattr(transformers, config["architectures"][0])
    model = family.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokens = json.loads((folder / "tokens.json").read_text())
    with torch.no_grad():
        last = model(torch.tensor([tokens])).logits[0, -POSITIONS:]
    return [[float(f"{value:.6g}") for value in row] for row in last.tolist()]


transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
folders = sorted(path for path in pathlib.Path(sys.argv[1]).iterdir() if path.is_dir())
rows = [f"  {json.dumps(folder.name)}: {json.dumps(logits(folder))}" for folder in folders]
print("{\n" + ",\n".join(rows) + "\n}")
print(f"torch {torch.__version__}, transformers {transformers.__version__}", file=sys.stderr)
