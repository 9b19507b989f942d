"""A small SentencePiece model of Llama's kind, and what the Python package `sentencepiece` makes of texts with it.

    python3 -m venv venv && venv/bin/pip install sentencepiece==0.2.3
    venv/bin/python crates/models/tests/golden/pieces.py > crates/models/tests/golden/pieces.json

Trained on the project's documentation as it was then: another day gives another model.
"""

import io
import json
import pathlib

import sentencepiece

docs = pathlib.Path(__file__).parents[4] / "docs"
lines = [
    line
    for page in ["models.md", "engine.md", "pool.md"]
    for line in (docs / page).read_text(encoding="utf-8").splitlines()
]
model = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(lines),
    model_writer=model,
    model_type="bpe",
    vocab_size=600,
    byte_fallback=True,
    split_digits=True,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    allow_whitespace_only_pieces=True,
    minloglevel=2,
)
processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def kind(piece):
    """`enum llama_token_type`, as llama.cpp's converter writes it."""
    if processor.is_unknown(piece):
        return 2
    if processor.is_control(piece):
        return 3
    return 6 if processor.is_byte(piece) else 1


count = processor.get_piece_size()
texts = [
    "The capital of France is Paris.",
    " a text  that begins with a space,   and has more",
    "1234567 tokens\n\n\tin 3.14 lines\r\n",
    "Grüße aus Köln, 東京 and 🦀\u200d🦀",
    "aaaaaaaaaaaaaaaaaaaaaa  ====-----______",
    "x",
    " ",
    "",
    "\u2581 stands for a space",
    "dovetail-worker model import DIR --out FILE",
    *lines[2:60:3],
]
print(
    json.dumps(
        {
            "pieces": [processor.id_to_piece(i) for i in range(count)],
            "scores": [processor.get_score(i) for i in range(count)],
            "kinds": [kind(i) for i in range(count)],
            "texts": [{"text": text, "ids": processor.encode(text)} for text in texts],
        },
        indent=None,
    )
)
