"""Trains clerk's tokenizer: byte-level BPE in which copying is easy.

Every text has tokens, since every byte has one. Each digit, each run of spaces and each mark is a piece of its own,
so that a word's tokens do not depend on what stands before it. The glue between the answer's fields is one
token per kind of glue.
"""

import argparse
import json
import re

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

BOS, EOS, ANSWER, PAD = "<s>", "</s>", "<|answer|>", "<|pad|>"
# What may stand between two fields of an answer, as answers are written (schema.json has their order).
MUST = ["vendor", "number", "date", "currency", "total"]
MAY = ["tax", "discount", "shipping"]
GLUE = (
    ['{"vendor":"', '{"vendor":null']
    + [f'","{key}":"' for key in MUST[1:] + MAY]
    + [f'","{key}":null' for key in MUST[1:]]
    + [f',"{key}":"' for key in MUST[1:]]
    + [f',"{key}":null' for key in MUST[1:]]
    + ['","credit":true,"items":[{"text":"', '","items":[{"text":"', ',"items":[{"text":"', ',"items":[]}', '","items":[]}']
    + ['","qty":', ',"price":"', '"},{"text":"', '"}]}']
    + ['{"item":"', '","on_hand":', ',"target":', ',"order":']
)
PIECES = r"\p{N}|\p{L}+| +|\n|[^\s\p{L}\p{N}]|\s"


def field_of(glue: str) -> str:
    """The field that begins behind that glue."""
    keys = re.findall(r'"(\w+)":', glue)
    return keys[-1] if keys and not glue.endswith(("]}", "null")) else "end"


def train(paths: list[str], size: int, documents: int) -> Tokenizer:
    """A tokenizer of `size` tokens from the first `documents` lines of each file."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PIECES), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([PAD, BOS, EOS, ANSWER])
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(GLUE),
        special_tokens=[PAD, BOS, EOS, ANSWER],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def texts():
        for path in paths:
            with open(path, encoding="utf-8") as lines:
                for _, line in zip(range(documents), lines):
                    yield json.loads(line)["prompt"]

    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.add_tokens([AddedToken(glue, special=False, normalized=False) for glue in GLUE])
    ids = {token: tokenizer.token_to_id(token) for token in (BOS, ANSWER)}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {ANSWER}", special_tokens=list(ids.items())
    )
    return tokenizer


def lengths(tokenizer: Tokenizer, path: str, documents: int) -> list[int]:
    """Tokens of prompt and answer together, shortest first."""
    with open(path, encoding="utf-8") as lines:
        parsed = [json.loads(line) for _, line in zip(range(documents), lines)]
    prompts = tokenizer.encode_batch([document["prompt"] for document in parsed])
    answers = tokenizer.encode_batch([document["answer"] for document in parsed], add_special_tokens=False)
    return sorted(len(p.ids) + len(a.ids) + 1 for p, a in zip(prompts, answers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, nargs="+")
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    tokenizer = train(arguments.data, arguments.size, arguments.documents)
    tokenizer.save(arguments.out)
    counts = lengths(tokenizer, arguments.data[0], 5_000)
    share = {percent: counts[min(len(counts) - 1, len(counts) * percent // 100)] for percent in (50, 90, 99)}
    print(f"tokens a document: half {share[50]}, 90 % {share[90]}, 99 % {share[99]}, longest {counts[-1]}")


if __name__ == "__main__":
    main()
