"""Gives clerk's file of engine version 2 the manifest of version 3. No tensor changes.

Version 3 computes with the same tensors where the head stands apart: what it changed is how attention adds up, how
large the residual stream may get, and heads that are the embedding. So the manifest takes the new version and says by
which turn the importer of version 2 had spread outliers: the largest power of two that divides the width. The hash of
the tensors stays, the model's id does not.
"""

import argparse
import json
import struct
from pathlib import Path

ALIGNMENT = 8


def restamped(file: bytes) -> bytes:
    """The file with another head."""
    (length,) = struct.unpack("<Q", file[:8])
    header = json.loads(file[8 : 8 + length])
    manifest = json.loads(header["__metadata__"]["dovetail"])
    arch = manifest["architecture"]
    if manifest["engine_version"] != 2 or arch.get("tied_head"):
        raise SystemExit("only files of version 2 whose head stands apart")
    manifest["engine_version"] = 3
    arch["turn"] = arch["dim"] & -arch["dim"]
    header["__metadata__"]["dovetail"] = json.dumps(manifest, separators=(",", ":"), ensure_ascii=False)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text + file[8 + length :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.write_bytes(restamped(arguments.file.read_bytes()))


if __name__ == "__main__":
    main()
