"""How often a model is exact, field by field, with the right answer so far given: one pass over each document, without
generating. Exact in every token there is exact in free greedy generation too."""

import itertools
from pathlib import Path

import torch

from data import Data
from model import Llama
from tokenizer import GLUE, field_of

DOCUMENTS_MAX = 400


class Check:
    def __init__(self, data: Data, path: Path):
        with path.open(encoding="utf-8") as lines:
            documents = data.encode(list(itertools.islice(lines, DOCUMENTS_MAX)))
        documents = sorted((d for d in documents if len(d[0]) <= data.context), key=lambda d: len(d[0]))
        groups = [documents[at : at + 20] for at in range(0, len(documents), 20)]
        self.batches = [(group, data.batch(group, 0.0)[0]) for group in groups]
        self.field_of = {data.tokenizer.token_to_id(glue): field_of(glue) for glue in GLUE}

    @torch.inference_mode()
    def run(self, model: Llama, autocast) -> str:
        right: dict[str, int] = {}
        seen: dict[str, int] = {}
        whole = total = 0
        device = next(model.parameters()).device
        for documents, tokens in self.batches:
            tokens = tokens.to(device)
            with autocast():
                guesses = model(tokens[:, :-1]).argmax(-1)
            hits = (guesses == tokens[:, 1:]).cpu()
            for row, (ids, start) in enumerate(documents):
                whole += bool(hits[row, start - 1 : len(ids) - 1].all())
                total += 1
                self.count(ids, start, hits[row], seen, right)
        figures = " ".join(f"{field} {100 * right[field] / seen[field]:.1f}" for field in sorted(seen))
        return f"whole {100 * whole / max(1, total):.1f} | {figures}"

    def count(self, ids: list[int], start: int, hits, seen: dict[str, int], right: dict[str, int]) -> None:
        field, good = None, True
        for at in range(start, len(ids)):
            if ids[at] in self.field_of or at == len(ids) - 1:
                good &= bool(hits[at - 1])
                if field not in (None, "end"):
                    seen[field] = seen.get(field, 0) + 1
                    right[field] = right.get(field, 0) + good
                field, good = self.field_of.get(ids[at]), True
            else:
                good &= bool(hits[at - 1])
