"""LoRA adapters merged by numpy: in 64 bits and rounded once, and as PEFT does it, in 32 bits throughout.

    python3 -m venv venv && venv/bin/pip install numpy
    venv/bin/python crates/models/tests/golden/adapter.py > crates/models/tests/golden/adapter.json

Values are float32, little-endian. The last case has eighths only, on which every order of summing agrees.
"""

import json

import numpy as np

random = np.random.default_rng(7)


def drawn(shape, size):
    return random.normal(0, size, shape).astype(np.float32)


def eighths(shape, size):
    return (random.integers(-size, size, shape) / 8).astype(np.float32)


def summed(base, a, b, scale):
    """The sums in the order of the rank, each in float64."""
    sums = np.zeros(base.shape)
    for k in range(a.shape[0]):
        sums += b[:, k : k + 1].astype(np.float64) * a[k].astype(np.float64)
    return (base.astype(np.float64) + scale * sums).astype(np.float32)


golden = []
for rows, columns, rank, scale, draw in [
    (6, 10, 4, 2.0, lambda s: drawn(s, 0.1)),
    (5, 8, 16, 16 / np.sqrt(16), lambda s: drawn(s, 1)),
    (4, 6, 3, 0.5, lambda s: eighths(s, 64)),
]:
    base, a, b = draw((rows, columns)), draw((rank, columns)), draw((rows, rank))
    peft = base + (b @ a) * np.float32(scale)
    merged = summed(base, a, b, scale)
    assert np.allclose(peft, merged, rtol=0, atol=2e-7 * np.abs(merged).max())
    arrays = {"base": base, "a": a, "b": b, "merged": merged, "peft": peft}
    golden.append(
        {"rank": rank, "columns": columns, "scale": scale}
        | {name: array.astype("<f4").tobytes().hex() for name, array in arrays.items()}
    )
print(json.dumps(golden, indent=1))
