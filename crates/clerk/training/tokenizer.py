"""Trains clerk's tokenizer: byte-level BPE in which copying is easy.

Each digit, each space run and each mark is a piece of its own, so that a word's tokens do not depend
on what stands before it. The glue between the answer's fields is one token per kind of glue.
"""

import argparse
import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

BOS, EOS, ANSWER, PAD = "<s>", "</s>", "<|answer|>", "<|pad|>"
GLUE = [
    '{"vendor":"', '","number":"', '","date":"', '","currency":"', '","total":"', '","items":[{"text":"',
    '","qty":', ',"price":"', '"},{"text":"', '"}]}',
    '{"item":"', '","on_hand":', ',"target":', ',"order":',
]
PIECES = r"\p{N}|\p{L}+| +|\n|[^\s\p{L}\p{N}]|\s"


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, nargs="+")
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    train(arguments.data, arguments.size, arguments.documents).save(arguments.out)


if __name__ == "__main__":
    main()
