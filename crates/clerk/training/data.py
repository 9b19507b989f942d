"""Documents as tokens and loss weights, in batches of about one length and one number of tokens."""

import itertools
import json
import queue
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from tokenizer import ANSWER, BOS, EOS, PAD

# A sheet's order is a few digits among thousands of copied tokens, and the only arithmetic.
ORDER_WEIGHT = 4.0
# Documents that are tokenised and sorted by length together.
CHUNK = 4096
# Lengths are filled up to a multiple of this, so that a GPU sees few of them.
MULTIPLE = 64
# Batches that wait for the trainer, where another thread makes them.
WAITING_MAX = 64

Batch = tuple[Tensor, Tensor]
Encoded = tuple[list[int], int]


class Data:
    """Batches from the files in turn, without end."""

    def __init__(self, tokenizer: Tokenizer, paths: list[Path], tokens: int, context: int, seed: int):
        self.tokenizer, self.paths, self.tokens, self.context = tokenizer, paths, tokens, context
        self.random = random.Random(seed)
        self.end = tokenizer.token_to_id(EOS)
        self.order = tokenizer.token_to_id(',"order":')
        self.vocabulary = tokenizer.get_vocab_size()
        # Only documents of at most so many tokens; the trainer moves it.
        self.longest = context
        # How much prompts count; the trainer moves it.
        self.prompt_weight = 0.0
        self.left_out = 0
        assert tokenizer.token_to_id(PAD) == 0, "rows are filled up with token 0"

    def encode(self, lines: list[str]) -> list[Encoded]:
        """For each document its tokens and where the answer begins."""
        parsed = [json.loads(line) for line in lines]
        prompts = self.tokenizer.encode_batch([document["prompt"] for document in parsed])
        answers = self.tokenizer.encode_batch([document["answer"] for document in parsed], add_special_tokens=False)
        return [(p.ids + a.ids + [self.end], len(p.ids)) for p, a in zip(prompts, answers)]

    def batch(self, documents: list[Encoded], prompt_weight: float) -> Batch:
        length = max(len(tokens) for tokens, _ in documents)
        length = min(self.context + 1, -(-length // MULTIPLE) * MULTIPLE + 1)
        tokens = torch.zeros(len(documents), length, dtype=torch.long)
        weights = torch.zeros(len(documents), length)
        for row, (ids, start) in enumerate(documents):
            tokens[row, : len(ids)] = torch.tensor(ids)
            weights[row, 1:start] = prompt_weight
            weights[row, start : len(ids)] = 1.0
            if self.order in ids:
                weights[row, ids.index(self.order) + 1 : len(ids)] = ORDER_WEIGHT
        return tokens, weights

    def lines(self) -> Iterator[list[str]]:
        for path in itertools.cycle(self.paths):
            with path.open(encoding="utf-8") as lines:
                while chunk := list(itertools.islice(lines, CHUNK)):
                    yield chunk

    def documents(self) -> Iterator[Batch]:
        """Batches of documents; those of one chunk in any order."""
        for chunk in self.lines():
            encoded = self.encode(chunk)
            fitting = [document for document in encoded if len(document[0]) <= self.context]
            self.left_out += len(encoded) - len(fitting)
            short = sorted((d for d in fitting if len(d[0]) <= self.longest), key=lambda d: len(d[0]))
            groups: list[list[Encoded]] = [[]]
            for document in short:
                if groups[-1] and (len(groups[-1]) + 1) * len(document[0]) > self.tokens:
                    groups.append([])
                groups[-1].append(document)
            self.random.shuffle(groups)
            yield from (self.batch(group, self.prompt_weight) for group in groups if group)

    def drill(self, pieces_max: int) -> Batch:
        """Rows of keyed pieces, then the same pieces in another order: looking up and copying, which documents
        alone would take long to teach, and for every token of the vocabulary."""
        count, most = self.random.randint(1, pieces_max), self.random.choice([3, 6, 10])
        vocabulary = range(4, self.vocabulary)
        line, answer = self.tokenizer.token_to_id("Ċ"), self.tokenizer.token_to_id(ANSWER)
        rows, weights = [], []
        for _ in range(max(1, self.tokens // (count * (most + 4) * 2))):
            keys = self.random.sample(vocabulary, count)
            pieces = [[key, *self.random.choices(vocabulary, k=self.random.randint(1, most)), line] for key in keys]
            prompt = [self.tokenizer.token_to_id(BOS), *itertools.chain(*pieces), answer]
            self.random.shuffle(pieces)
            rows.append(prompt + list(itertools.chain(*pieces)))
            marks = [[0.0] + [1.0] * (len(piece) - 1) for piece in pieces]
            weights.append([0.0] * len(prompt) + list(itertools.chain(*marks)))
        length = max(map(len, rows))
        return (
            torch.tensor([ids + [0] * (length - len(ids)) for ids in rows]),
            torch.tensor([marks + [0.0] * (length - len(marks)) for marks in weights]),
        )

    def subtractions(self) -> Batch:
        """The answers of stock sheets without the sheets: many subtractions for few tokens."""
        rows = []
        for _ in range(max(1, self.tokens // 32)):
            target = self.random.choice([self.random.randint(1, 99), 10 * self.random.randint(1, 99), self.random.randint(1, 9_999)])
            on_hand = self.random.randrange(target) if self.random.random() < 0.85 else self.random.randint(target, 9_999)
            text = f'","on_hand":{on_hand},"target":{target},"order":{max(0, target - on_hand)}}}'
            ids = self.tokenizer.encode(text, add_special_tokens=False).ids
            start = [self.tokenizer.token_to_id(token) for token in (BOS, ANSWER, '{"item":"')]
            rows.append(([*start, self.random.randint(4, self.vocabulary - 1), *ids, self.end], 0))
        tokens, _ = self.batch(rows, 0.0)
        # Only what can be known counts: the tokens after `order`.
        after = (tokens == self.order).cumsum(1) - (tokens == self.order).long()
        return tokens, (after * (tokens != 0)).float()


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches, made by another thread while the trainer computes."""
    waiting: queue.Queue[Batch] = queue.Queue(WAITING_MAX)

    def fill() -> None:
        for batch in batches:
            waiting.put(batch)

    threading.Thread(target=fill, daemon=True).start()
    while True:
        yield waiting.get()
