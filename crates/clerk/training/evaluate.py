"""Greedy answers of the float model to unseen documents, and the exact matches per field."""

import argparse
import json
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer

from model import Llama
from tokenizer import EOS

ANSWER_TOKENS = 900
# Rows that are answered side by side.
TOGETHER = 32
# Keys that an answer has only where the paper says them.
OPTIONAL = ["tax", "discount", "shipping", "credit"]


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
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu", action="store_true", help="not on the GPU")
    parser.add_argument("--table", type=Path, help="write the figures as a table for the model card")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    model = Llama.load(arguments.model)
    if torch.cuda.is_available() and not arguments.cpu:
        model.cuda()
    with arguments.data.open(encoding="utf-8") as lines:
        documents = [json.loads(line) for _, line in zip(range(arguments.count), lines)]
    begun = time.monotonic()
    documents.sort(key=lambda document: len(document["prompt"]))
    answers = []
    for start in range(0, len(documents), TOGETHER):
        prompts = [tokenizer.encode(document["prompt"]).ids for document in documents[start : start + TOGETHER]]
        answers += map(tokenizer.decode, model.generate(prompts, tokenizer.token_to_id(EOS), ANSWER_TOKENS))
    figures = count(documents, answers, arguments.show)
    for name, (right, of) in sorted(figures.items()):
        print(f"{name:22} {right:5} of {of:5}  {100 * right / of:6.2f} %")
    print(f"{len(documents)} documents in {time.monotonic() - begun:.0f} s")
    if arguments.table:
        rows = [f"| {name} | {right} | {of} | {100 * right / of:.2f} |" for name, (right, of) in sorted(figures.items())]
        arguments.table.write_text("\n".join(["| field | right | of | % |", "|---|---|---|---|", *rows]) + "\n")


def count(documents: list[dict], answers: list[str], show: int) -> dict[str, tuple[int, int]]:
    """For each field how many are right, of how many."""
    figures: dict[str, tuple[int, int]] = {}

    def add(name: str, hit: bool) -> None:
        right, of = figures.get(name, (0, 0))
        figures[name] = (right + hit, of + 1)

    for document, answer in zip(documents, answers):
        truth = json.loads(document["answer"])
        kind = document["kind"] if truth.get("vendor", truth.get("item")) else "letter"
        try:
            given = json.loads(answer)
            compared = fields(kind, given)
        except (ValueError, KeyError, TypeError, AttributeError):
            given = compared = {}
        add("all: JSON", bool(given))
        add(f"{kind}: whole", answer == document["answer"])
        expected = fields(kind, truth)
        optional = {key: None for key in OPTIONAL} if kind == "invoice" else {}
        for key, value in ({} if kind == "letter" else optional | expected).items():
            add(f"{kind}: {key}", compared.get(key) == value)
        if answer != document["answer"] and show > 0:
            show -= 1
            print(document["prompt"], "\nexpected", document["answer"], "\nanswered", answer, "\n")
    return figures


if __name__ == "__main__":
    main()
