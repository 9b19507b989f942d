"""Blocks of each type that GGUF files have here, and what the Python package `gguf` makes of them.

    python3 -m venv venv && venv/bin/pip install gguf==0.19.0 numpy
    venv/bin/python crates/models/tests/golden/blocks.py > crates/models/tests/golden/blocks.json

Random bytes; only the scales are set, so that no value is infinite. Values are float32, little-endian.
"""

import json

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

# Where the 16-bit scales of a block stand.
HALVES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}

random = np.random.default_rng(13)
golden = {}
for name in ["F32", "F16", "BF16", *HALVES]:
    kind = GGMLQuantizationType[name]
    elements, width = GGML_QUANT_SIZES[kind]
    if name in HALVES:
        blocks = random.integers(0, 256, (2, width), dtype=np.uint8)
        for at in HALVES[name]:
            scales = random.normal(0, 0.05, 2).astype(np.float16)
            # One of them is below the normal numbers.
            scales[1] = np.float16(3e-6)
            blocks[:, at : at + 2] = scales.view(np.uint8).reshape(2, 2)
    else:
        values = random.normal(0, 1, 8).astype(np.float32)
        if name == "F16":
            values = values.astype(np.float16)
        blocks = values.view(np.uint8).reshape(1, -1)
        if name == "BF16":
            blocks = blocks.reshape(-1, 4)[:, 2:].reshape(1, -1).copy()
    data = blocks.reshape(1, -1)
    values = dequantize(data, kind).astype(np.float32).ravel()
    assert np.isfinite(values).all() and len(values) == data.size // width * elements
    golden[name] = {"bytes": data.tobytes().hex(), "values": values.tobytes().hex()}
print(json.dumps(golden, indent=1))
