"""Greedy answers of the float model to unseen documents, and the exact matches per field."""

import argparse
import json
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer

from model import Llama
from tokenizer import EOS

ANSWER_TOKENS = 256


def fields(kind: str, answer: dict) -> dict:
    """What is compared: for items the list of each key, so that a missing row makes it wrong."""
    if kind == "stock":
        return answer
    rows = answer["items"]
    columns = {f"items.{key}": [row[key] for row in rows] for key in ("text", "qty", "price")}
    return {key: value for key, value in answer.items() if key != "items"} | columns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a checkpoint folder")
    parser.add_argument("--data", type=Path, required=True, help="what `dovetail-clerk generate` wrote")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--show", type=int, default=0, help="print that many wrong answers")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    model = Llama.load(arguments.model)
    with arguments.data.open(encoding="utf-8") as lines:
        documents = [json.loads(line) for _, line in zip(range(arguments.count), lines)]
    begun = time.monotonic()
    documents.sort(key=lambda document: len(document["prompt"]))
    answers = []
    for start in range(0, len(documents), 50):
        prompts = [tokenizer.encode(document["prompt"]).ids for document in documents[start : start + 50]]
        answers += map(tokenizer.decode, model.generate(prompts, tokenizer.token_to_id(EOS), ANSWER_TOKENS))
    report(documents, answers, arguments.show)
    print(f"{len(documents)} documents in {time.monotonic() - begun:.0f} s")


def report(documents: list[dict], answers: list[str], show: int) -> None:
    right: dict[str, int] = {}
    seen: dict[str, int] = {}
    for document, answer in zip(documents, answers):
        kind = document["kind"]
        truth = fields(kind, json.loads(document["answer"]))
        try:
            given = fields(kind, json.loads(answer))
        except (ValueError, KeyError, TypeError):
            given = {}
        hits = {f"{kind}.{key}": given.get(key) == value for key, value in truth.items()}
        hits |= {f"{kind} (whole)": answer == document["answer"], "parsed": bool(given)}
        for name, hit in hits.items():
            seen[name] = seen.get(name, 0) + 1
            right[name] = right.get(name, 0) + hit
        if answer != document["answer"] and show > 0:
            show -= 1
            print(document["prompt"], "\nexpected", document["answer"], "\nanswered", answer, "\n")
    for name in sorted(seen):
        print(f"{name:22} {right[name]:5} of {seen[name]:5}  {100 * right[name] / seen[name]:6.2f} %")


if __name__ == "__main__":
    main()
