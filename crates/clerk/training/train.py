"""Trains clerk on documents that `dovetail-clerk generate --wide` wrote, on a GPU if there is one, else on the CPU.

The learning rate follows the time spent (--minutes) or the steps done (--steps); a stopped run goes on with --resume.
With --steps, one thread and no GPU, the same seed and data give the same run.
"""

import argparse
import contextlib
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

from data import Batch, Data, ahead
from exact import Check
from model import SHAPES, Llama, Shape
from muon import Muon
from tokenizer import ANSWER, BOS, EOS, PAD

PROMPT_WEIGHT = 0.1
# Short documents first: copying is found sooner where there is less to look at.
SHORT_UNTIL, SHORT_TOKENS = 0.15, 320
# Before that, and now and then until half-time, pieces of random tokens to find again by their keys.
DRILL_UNTIL, DRILL_SHARE = 0.03, 0.05
# Subtractions are short: more of them in the second half, when all else is nearly learned.
SUBTRACTION_SHARE, SUBTRACTION_SHARE_LATER = 0.03, 0.06
STEP_SECONDS_MAX = 20.0
# Seconds between checks, and between lines of the log.
CHECK_EVERY, LOG_EVERY = 60.0, 10.0


class Run:
    """A training, from wherever it stands to its end."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.device = torch.device("cuda" if torch.cuda.is_available() and not arguments.cpu else "cpu")
        self.tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
        self.model = Llama(Shape(vocab_size=self.tokenizer.get_vocab_size(), **SHAPES[arguments.shape]))
        if arguments.start:
            self.model.load_state_dict(load_file(arguments.start / "model.safetensors"))
        self.model.to(self.device)
        matrices = [w for n, w in self.model.named_parameters() if w.dim() == 2 and "layers" in n]
        others = [w for n, w in self.model.named_parameters() if not (w.dim() == 2 and "layers" in n)]
        self.optimizers = [
            Muon(matrices, lr=0.02),
            torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.rates = [group["lr"] for group in self.groups()]
        self.step, self.spent = 0, 0.0
        self.state = arguments.out / "run.pt"
        if arguments.resume and self.state.exists():
            self.load()
        context = self.model.shape.max_position_embeddings
        self.data = Data(self.tokenizer, arguments.data, arguments.tokens, context, arguments.seed + self.step)
        self.check = Check(self.data, arguments.check)

    def groups(self) -> list[dict]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def autocast(self):
        if self.device.type == "cuda" or self.arguments.bf16:
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def progress(self) -> float:
        if self.arguments.steps:
            return self.step / self.arguments.steps
        return self.spent / (60 * self.arguments.minutes)

    def batches(self) -> Iterator[Batch]:
        """Batches of all kinds; where the run stands decides which come."""
        documents = self.data.documents()
        if self.device.type == "cuda":
            documents = ahead(documents)
        chance = random.Random(self.step).random
        # Who starts from a checkpoint has had the first lessons.
        at = lambda: 0.5 + 0.5 * self.progress() if self.arguments.start else self.progress()  # noqa: E731
        while True:
            here = at()
            self.data.longest = SHORT_TOKENS if here < SHORT_UNTIL else self.data.context
            self.data.prompt_weight = PROMPT_WEIGHT * max(0.0, 1.0 - 4.0 * here)
            if here < DRILL_UNTIL:
                yield self.data.drill(1 + int(5 * here / DRILL_UNTIL))
                continue
            if here < 0.5 and chance() < DRILL_SHARE:
                yield self.data.drill(6)
            if chance() < (SUBTRACTION_SHARE if here < 0.5 else SUBTRACTION_SHARE_LATER):
                yield self.data.subtractions()
            yield next(documents)

    def learn(self, batch: Batch) -> tuple[torch.Tensor, int]:
        """One step; the loss, still on the device, and how many tokens it saw."""
        factor = self.arguments.rate * schedule(self.progress())
        for group, rate in zip(self.groups(), self.rates):
            group["lr"] = rate * factor
        tokens, weights = (part.to(self.device, non_blocking=True) for part in batch)
        weights = weights[:, 1:]
        counted = weights > 0
        with self.autocast():
            logits = self.model.lm_head(self.model.hidden(tokens[:, :-1])[counted])
        losses = F.cross_entropy(logits.float(), tokens[:, 1:][counted], reduction="none")
        loss = (losses * weights[counted]).sum() / weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.model.zero_grad(set_to_none=True)
        return loss.detach(), tokens.numel()

    def run(self) -> None:
        parameters = sum(w.numel() for w in self.model.parameters())
        print(f"{parameters} parameters on {self.device}", flush=True)
        losses, seen, logged, checked = [], 0, time.monotonic(), self.spent
        batches = self.batches()
        while self.progress() < 1.0:
            begun = time.monotonic()
            loss, count = self.learn(next(batches))
            losses.append(loss)
            seen += count
            self.step += 1
            # A process that was stopped for a while has not trained in that time.
            self.spent += min(time.monotonic() - begun, STEP_SECONDS_MAX)
            now = time.monotonic()
            if now - logged > LOG_EVERY or self.progress() >= 1.0:
                mean = torch.stack(losses).mean().item()
                print(f"step {self.step} {self.spent:.0f}s loss {mean:.4f} {seen / (now - logged):.0f} tok/s", flush=True)
                losses, seen, logged = [], 0, time.monotonic()
            if self.spent - checked > CHECK_EVERY:
                checked = self.spent
                print(f"check step {self.step} {self.spent:.0f}s {self.check.run(self.model, self.autocast)}", flush=True)
                self.save_state()
                logged, seen = time.monotonic(), 0
        self.save_state()
        print(f"done step {self.step} {self.spent:.0f}s {self.check.run(self.model, self.autocast)}", flush=True)
        if self.data.left_out:
            print(f"{self.data.left_out} documents did not fit the context and were left out", flush=True)
        self.save()

    def save_state(self) -> None:
        """What --resume needs, written beside and put in place, so that a run stopped meanwhile keeps the last."""
        values = {"model": self.model.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers]}
        new = self.state.with_suffix(".new")
        torch.save(values | {"step": self.step, "spent": self.spent}, new)
        new.replace(self.state)

    def load(self) -> None:
        saved = torch.load(self.state, map_location=self.device)
        self.model.load_state_dict(saved["model"])
        for optimizer, values in zip(self.optimizers, saved["optimizers"]):
            optimizer.load_state_dict(values)
        self.step, self.spent = saved["step"], saved["spent"]

    def save(self) -> None:
        """The checkpoint as Hugging Face reads it, for `dovetail-worker model import`."""
        names = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
        folder = self.arguments.out / "checkpoint"
        self.model.save(folder, {name: self.tokenizer.token_to_id(token) for name, token in names.items()}, self.arguments.half)
        shutil.copy(self.arguments.tokenizer, folder / "tokenizer.json")
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS, "eos_token": EOS, "pad_token": PAD,
            "additional_special_tokens": [ANSWER],
            "clean_up_tokenization_spaces": False,
            "model_max_length": self.model.shape.max_position_embeddings,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def schedule(progress: float) -> float:
    """Warm-up, a plateau, then down to zero."""
    return min(1.0, progress / 0.01 + 0.01, max(0.0, 1.0 - progress) / 0.8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, nargs="+")
    parser.add_argument("--check", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="clerk")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--tokens", type=int, default=8_192, help="per batch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", type=Path, help="a checkpoint's folder: go on from its weights, past the first lessons")
    parser.add_argument("--rate", type=float, default=1.0, help="of the usual learning rate, at its highest")
    parser.add_argument("--bf16", action="store_true", help="products in bfloat16 on the CPU, where it is fast at them")
    parser.add_argument("--half", action="store_true", help="write the checkpoint in bfloat16")
    parser.add_argument("--cpu", action="store_true", help="not on the GPU")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    torch.set_float32_matmul_precision("high")
    arguments.out.mkdir(parents=True, exist_ok=True)
    Run(arguments).run()


if __name__ == "__main__":
    main()
