"""Trains clerk on the CPU from documents that `dovetail-clerk generate` wrote.

The learning rate follows the time spent (--minutes) or the steps done (--steps); a stopped run goes on
with --resume. With --steps and one thread count, the same seed and data give the same run.
"""

import argparse
import itertools
import json
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from model import Llama, Shape
from tokenizer import ANSWER, BOS, EOS, GLUE, PAD

# A sheet's order is one or two digits among thousands of copied tokens, and the only arithmetic.
ORDER_WEIGHT = 4.0
PROMPT_WEIGHT = 0.1
# Short documents first: copying is found sooner where there is less to look at.
SHORT_UNTIL, SHORT_TOKENS = 0.25, 180
# Before that, and now and then until half-time, pieces of random tokens to find again by their keys:
# they teach the looking up and copying that documents alone would take an hour to teach, and for every
# token of the vocabulary.
DRILL_UNTIL, DRILL_SHARE = 0.03, 0.05
# Subtractions are short: more of them in the second half, when all else is nearly learned.
SUBTRACTION_SHARE, SUBTRACTION_SHARE_LATER = 0.05, 0.10
# Blocks of invoices, four times as many as documents in a batch: many batches of them at first.
FRAGMENTS_AT_FIRST, FRAGMENTS_LATER, FRAGMENTS_UNTIL = 3.0, 0.3, 0.7
STEP_SECONDS_MAX = 6.0
FIELDS = ["vendor", "number", "date", "currency", "total", "text", "qty", "price", "item", "on_hand", "target", "order"]


class Data:
    """Tokens and loss weights of documents, in batches of about one length."""

    def __init__(self, tokenizer: Tokenizer, path: Path, documents: int, seed: int, fragments: Path | None = None):
        self.tokenizer, self.path, self.documents, self.fragments = tokenizer, path, documents, fragments
        self.random = random.Random(seed)
        self.end = tokenizer.token_to_id(EOS)
        self.order = tokenizer.token_to_id(',"order":')
        assert tokenizer.token_to_id(PAD) == 0, "rows are filled up with token 0"

    def encode(self, lines: list[str]) -> list[tuple[list[int], int]]:
        """For each document its tokens and where the answer begins."""
        parsed = [json.loads(line) for line in lines]
        prompts = self.tokenizer.encode_batch([document["prompt"] for document in parsed])
        answers = self.tokenizer.encode_batch([document["answer"] for document in parsed], add_special_tokens=False)
        return [(p.ids + a.ids + [self.end], len(p.ids)) for p, a in zip(prompts, answers)]

    def batch(self, documents: list[tuple[list[int], int]], prompt_weight: float) -> tuple[Tensor, Tensor]:
        length = max(len(tokens) for tokens, _ in documents)
        tokens = torch.zeros(len(documents), length, dtype=torch.long)
        weights = torch.zeros(len(documents), length)
        for row, (ids, start) in enumerate(documents):
            tokens[row, : len(ids)] = torch.tensor(ids)
            weights[row, 1:start] = prompt_weight
            weights[row, start : len(ids)] = 1.0
            if self.order in ids:
                weights[row, ids.index(self.order) + 1 : len(ids)] = ORDER_WEIGHT
        return tokens, weights

    def drill(self, pieces_max: int) -> tuple[Tensor, Tensor]:
        """Rows of keyed pieces, then the same pieces in another order."""
        count, most = self.random.randint(1, pieces_max), self.random.choice([3, 6, 10])
        vocabulary = range(4, self.tokenizer.get_vocab_size())
        line, answer = self.tokenizer.token_to_id("Ċ"), self.tokenizer.token_to_id(ANSWER)
        rows = []
        for _ in range(4 * self.documents):
            keys = self.random.sample(vocabulary, count)
            pieces = [[key, *self.random.choices(vocabulary, k=self.random.randint(1, most)), line] for key in keys]
            prompt = [self.tokenizer.token_to_id(BOS), *itertools.chain(*pieces), answer]
            self.random.shuffle(pieces)
            weights = [0.0] * len(prompt)
            for piece in pieces:
                weights += [0.0] + [1.0] * (len(piece) - 1)
            rows.append((prompt + list(itertools.chain(*pieces)), weights))
        length = max(len(ids) for ids, _ in rows)
        padded = [(ids + [0] * (length - len(ids)), weights + [0.0] * (length - len(ids))) for ids, weights in rows]
        return torch.tensor([ids for ids, _ in padded]), torch.tensor([weights for _, weights in padded])

    def subtractions(self) -> tuple[Tensor, Tensor]:
        """The answers of stock sheets without the sheets: many subtractions for few tokens."""
        rows = []
        for _ in range(10 * self.documents):
            target, word = 10 * self.random.randint(1, 9), self.random.randint(4, self.tokenizer.get_vocab_size() - 1)
            on_hand = self.random.randrange(target) if self.random.random() < 0.85 else self.random.randint(target, 99)
            text = f'","on_hand":{on_hand},"target":{target},"order":{max(0, target - on_hand)}}}'
            ids = self.tokenizer.encode(text, add_special_tokens=False).ids
            start = [self.tokenizer.token_to_id(token) for token in (BOS, ANSWER, '{"item":"')]
            rows.append(([*start, word, *ids, self.end], 0))
        tokens, _ = self.batch(rows, 0.0)
        # Only what can be known counts: the tokens after `order`.
        after = (tokens == self.order).cumsum(1) - (tokens == self.order).long()
        return tokens, after * (tokens != 0)

    def lessons(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of blocks of invoices. Which field such a piece begins with cannot be known, and where
        it ends only by the next field's beginning."""
        size = 4 * self.documents
        for documents in self.sorted_batches(self.fragments, size):
            tokens, weights = self.batch([(ids[:-1], start) for ids, start in documents], 0.0)
            for row, (_, start) in enumerate(documents):
                weights[row, start] = 0.0
            yield tokens, weights

    def sorted_batches(self, path: Path, size: int, longest=lambda: 1 << 30) -> Iterator[list]:
        """Documents of about one length, the file again from its beginning when it ends."""
        while True:
            with path.open(encoding="utf-8") as lines:
                while chunk := [line for _, line in zip(range(size * 32), lines)]:
                    documents = [document for document in self.encode(chunk) if len(document[0]) <= longest()]
                    documents.sort(key=lambda document: len(document[0]))
                    starts = list(range(0, len(documents) - size + 1, size))
                    self.random.shuffle(starts)
                    for start in starts:
                        yield documents[start : start + size]

    def forever(self, progress) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of all kinds; `progress()` is from 0 to 1, and where it starts decides which come."""
        while progress() < DRILL_UNTIL:
            yield self.drill(1 + int(5 * progress() / DRILL_UNTIL))
        lessons, owed = self.lessons(), 0.0
        longest = lambda: SHORT_TOKENS if progress() < SHORT_UNTIL else 1 << 30  # noqa: E731
        for documents in self.sorted_batches(self.path, self.documents, longest):
            early = progress() < SHORT_UNTIL
            owed += FRAGMENTS_AT_FIRST if early else FRAGMENTS_LATER if progress() < FRAGMENTS_UNTIL else 0.0
            while owed >= 1.0:
                owed -= 1.0
                yield next(lessons)
            if progress() < 0.5 and self.random.random() < DRILL_SHARE:
                yield self.drill(6)
            if self.random.random() < (SUBTRACTION_SHARE if progress() < 0.5 else SUBTRACTION_SHARE_LATER):
                yield self.subtractions()
            yield self.batch(documents, PROMPT_WEIGHT * max(0.0, 1.0 - 4.0 * progress()))


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal by five Newton-Schulz steps (Jordan et al. 2024)."""

    def __init__(self, parameters, lr: float, momentum: float = 0.95, decay: float = 0.01):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
            for weight in group["params"]:
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(state["momentum"], group["momentum"])
                wide = update.T if update.shape[0] > update.shape[1] else update
                alike.setdefault(tuple(wide.shape), []).append((weight, wide))
            for pairs in alike.values():
                updates = orthogonal(torch.stack([wide for _, wide in pairs]))
                for (weight, _), update in zip(pairs, updates):
                    tall = weight.shape[0] > weight.shape[1]
                    scale = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
                    weight.mul_(1 - group["lr"] * group["decay"])
                    weight.add_(update.T if tall else update, alpha=-group["lr"] * scale)


def orthogonal(x: Tensor) -> Tensor:
    """The nearest matrices with orthogonal rows, roughly. x: [count, rows, columns], rows <= columns."""
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


class Check:
    """Exactness on unseen documents with the right answer so far given: exact in every token there is
    exact in free greedy generation too."""

    def __init__(self, data: Data, path: Path, count: int):
        with path.open(encoding="utf-8") as lines:
            documents = data.encode([line for _, line in zip(range(count), lines)])
        documents.sort(key=lambda document: len(document[0]))
        self.batches = [(documents[i : i + 50], *data.batch(documents[i : i + 50], 0.0)) for i in range(0, count, 50)]
        self.field_of = {}
        for glue in GLUE:
            self.field_of[data.tokenizer.token_to_id(glue)] = ([f for f in FIELDS if f'"{f}"' in glue] or ["end"])[-1]

    @torch.inference_mode()
    def run(self, model: Llama) -> str:
        right, seen, whole, total = dict.fromkeys(FIELDS, 0), dict.fromkeys(FIELDS, 0), 0, 0
        for documents, tokens, _ in self.batches:
            guesses = model(tokens[:, :-1]).argmax(-1)
            hits = guesses == tokens[:, 1:]
            for row, (ids, start) in enumerate(documents):
                whole += bool(hits[row, start - 1 : len(ids) - 1].all())
                total += 1
                field, good = None, True
                for at in range(start, len(ids)):
                    if (ids[at] in self.field_of or at == len(ids) - 1) and at > start:
                        good &= bool(hits[row, at - 1])
                        if field in right:
                            seen[field] += 1
                            right[field] += good
                    if ids[at] in self.field_of:
                        field, good = self.field_of[ids[at]], True
                    else:
                        good &= bool(hits[row, at - 1])
        figures = " ".join(f"{field} {100 * right[field] / max(1, seen[field]):.1f}" for field in FIELDS)
        return f"whole {100 * whole / total:.1f} | {figures}"


def schedule(progress: float) -> float:
    """Warm-up, a plateau, then down to zero."""
    return min(1.0, progress / 0.01, max(0.0, 1.0 - progress) / 0.8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--fragments", type=Path, required=True)
    parser.add_argument("--check", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--documents", type=int, default=24, help="per batch")
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--start", type=Path, help="a checkpoint's folder: go on from its weights, past the first lessons")
    parser.add_argument("--rate", type=float, default=1.0, help="of the usual learning rate, at its highest")
    parser.add_argument("--bf16", action="store_true", help="products in bfloat16, where the processor is fast at them")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    train(arguments)


def train(arguments: argparse.Namespace) -> None:
    tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
    model = Llama(Shape(vocab_size=tokenizer.get_vocab_size(), num_hidden_layers=arguments.layers))
    matrices = [w for n, w in model.named_parameters() if w.dim() == 2 and "layers" in n]
    others = [w for n, w in model.named_parameters() if not (w.dim() == 2 and "layers" in n)]
    optimizers = [Muon(matrices, lr=0.02), torch.optim.AdamW(others, lr=4e-3, betas=(0.9, 0.98), weight_decay=0.0)]
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    print(f"{sum(w.numel() for w in model.parameters())} parameters", flush=True)
    state, step, spent = arguments.out / "run.pt", 0, 0.0
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.start:
        model.load_state_dict(load_file(arguments.start / "model.safetensors"))
    if arguments.resume:
        saved = torch.load(state)
        model.load_state_dict(saved["model"])
        for optimizer, values in zip(optimizers, saved["optimizers"]):
            optimizer.load_state_dict(values)
        step, spent = saved["step"], saved["spent"]

    def progress() -> float:
        return step / arguments.steps if arguments.steps else spent / (60 * arguments.minutes)

    data = Data(tokenizer, arguments.data, arguments.documents, arguments.seed + step, arguments.fragments)
    check = Check(data, arguments.check, 300)
    # Who starts from a checkpoint has had the first lessons.
    batches = data.forever(lambda: 0.5 + 0.5 * progress() if arguments.start else progress())
    sum_loss, sum_tokens, last, next_check = 0.0, 0, time.monotonic(), spent + 120
    while progress() < 1.0:
        begun = time.monotonic()
        factor = arguments.rate * schedule(progress())
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        for group, rate in zip(groups, rates):
            group["lr"] = rate * factor
        tokens, weights = next(batches)
        weights = weights[:, 1:]
        counted = weights > 0
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
            logits = model.lm_head(model.hidden(tokens[:, :-1])[counted])
        losses = F.cross_entropy(logits.float(), tokens[:, 1:][counted], reduction="none")
        loss = (losses * weights[counted]).sum() / weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        step += 1
        sum_loss, sum_tokens = sum_loss + loss.item(), sum_tokens + tokens.numel()
        # A process that was stopped for a while has not trained in that time.
        spent += min(time.monotonic() - begun, STEP_SECONDS_MAX)
        if step % 50 == 0:
            speed = sum_tokens / (time.monotonic() - last)
            print(f"step {step} {spent:.0f}s loss {sum_loss / 50:.4f} rate {factor:.3f} {speed:.0f} tok/s", flush=True)
            sum_loss, sum_tokens, last = 0.0, 0, time.monotonic()
        if spent > next_check:
            next_check = spent + 180
            print(f"check step {step} {spent:.0f}s {check.run(model)}", flush=True)
            saved = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}
            torch.save(saved | {"step": step, "spent": spent}, state)
            last, sum_tokens = time.monotonic(), 0
    print(f"done step {step} {spent:.0f}s {check.run(model)}", flush=True)
    save(model, tokenizer, arguments)


def save(model: Llama, tokenizer: Tokenizer, arguments: argparse.Namespace) -> None:
    names = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
    folder = arguments.out / "checkpoint"
    model.save(folder, {name: tokenizer.token_to_id(token) for name, token in names.items()})
    shutil.copy(arguments.tokenizer, folder / "tokenizer.json")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS, "eos_token": EOS, "pad_token": PAD,
        "additional_special_tokens": [ANSWER],
        "clean_up_tokenization_spaces": False,
        "model_max_length": model.shape.max_position_embeddings,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
