"""Trains an adapter (LoRA) that makes a Llama-shaped chat model read documents as clerk does: `clerk-135m` on SmolLM2.

The base is a Hugging Face folder and stays as it is. The adapter is written in PEFT's layout, for
`dovetail-worker model import --adapter DIR`: rank 8 on all seven matrices of each layer is 2.4 million parameters of
SmolLM2-135M, 4.9 MB in two bytes each.

    python lora.py --base SMOLLM2 --data train-1.jsonl --out clerk-135m --minutes 10
"""

import argparse
import contextlib
import itertools
import json
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from model import Llama, Shape

MATRICES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# What SmolLM2's chat template makes of one message. A document needs no question: the adapter is the question.
USER = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\n"
)
ASSISTANT, END = "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"
CHUNK = 512


class Adapted(nn.Module):
    """A frozen matrix and what is learned beside it."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.base, self.scale = base, alpha / rank
        self.a = nn.Parameter(torch.randn(rank, base.in_features) * base.in_features**-0.5)
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * F.linear(F.linear(x, self.a), self.b)


def load_base(folder: Path) -> Llama:
    """The model of a Hugging Face folder, its head tied to its embedding if it has none."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config.setdefault("rope_theta", config.get("rope_parameters", {}).get("rope_theta", 10_000.0))
    config["max_position_embeddings"] = min(2048, config["max_position_embeddings"])
    # The weights come from the file: starting them is no use, and its layout may not be ours.
    Llama.reset = lambda self: None
    model = Llama(Shape(**{name: config[name] for name in Shape.__dataclass_fields__}))
    state = {name: weight.float() for path in sorted(folder.glob("*.safetensors")) for name, weight in load_file(path).items()}
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    model.load_state_dict(state)
    return model.requires_grad_(False)


def adapt(model: Llama, rank: int, alpha: float) -> dict[str, Adapted]:
    """Puts an adapter beside each matrix of the layers; gives them by the matrix's name."""
    adapted = {}
    for at, layer in enumerate(model.model.layers):
        for part_name in ("self_attn", "mlp"):
            part = getattr(layer, part_name)
            for name in MATRICES:
                if hasattr(part, name):
                    one = Adapted(getattr(part, name), rank, alpha)
                    setattr(part, name, one)
                    adapted[f"model.layers.{at}.{part_name}.{name}"] = one
    return adapted


def batches(tokenizer: Tokenizer, path: Path, tokens: int, context: int, seed: int):
    """Batches of about one length, without end: tokens, and which of them are the answer's."""
    order = random.Random(seed)
    while True:
        with path.open(encoding="utf-8") as lines:
            while chunk := [json.loads(line) for line in itertools.islice(lines, CHUNK)]:
                prompts = tokenizer.encode_batch([USER + one["prompt"] + ASSISTANT for one in chunk], add_special_tokens=False)
                answers = tokenizer.encode_batch([one["answer"] + END for one in chunk], add_special_tokens=False)
                pairs = sorted(((p.ids, a.ids) for p, a in zip(prompts, answers)), key=lambda pair: sum(map(len, pair)))
                groups: list[list] = [[]]
                for prompt, answer in pairs:
                    length = len(prompt) + len(answer)
                    if length > context:
                        continue
                    if groups[-1] and (len(groups[-1]) + 1) * length > tokens:
                        groups.append([])
                    groups[-1].append((prompt, answer))
                order.shuffle(groups)
                yield from (filled(group) for group in groups if group)


def filled(group: list) -> tuple[Tensor, Tensor]:
    length = max(len(prompt) + len(answer) for prompt, answer in group)
    tokens = torch.zeros(len(group), length, dtype=torch.long)
    counted = torch.zeros(len(group), length, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(group):
        tokens[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        counted[row, len(prompt) : len(prompt) + len(answer)] = True
    return tokens, counted


def save(folder: Path, adapted: dict[str, Adapted], rank: int, alpha: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = {}
    for name, one in adapted.items():
        state[f"base_model.model.{name}.lora_A.weight"] = one.a.detach().to("cpu", torch.float16).contiguous()
        state[f"base_model.model.{name}.lora_B.weight"] = one.b.detach().to("cpu", torch.float16).contiguous()
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0,
        "bias": "none", "target_modules": MATRICES, "fan_in_fan_out": False, "use_dora": False, "use_rslora": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load(folder: Path, adapted: dict[str, Adapted]) -> None:
    """Takes up an adapter that `save` wrote. The optimizer begins anew."""
    state = load_file(folder / "adapter_model.safetensors")
    with torch.no_grad():
        for name, one in adapted.items():
            one.a.copy_(state[f"base_model.model.{name}.lora_A.weight"].float())
            one.b.copy_(state[f"base_model.model.{name}.lora_B.weight"].float())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="a Hugging Face folder")
    parser.add_argument("--data", type=Path, required=True, help="what `dovetail-clerk generate --wide` wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--steps", type=int, help="stop after so many")
    parser.add_argument("--tokens", type=int, default=8_192, help="per batch")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="go on with the adapter that lies in OUT")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    train(arguments)


def train(arguments: argparse.Namespace) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    alpha = 2.0 * arguments.rank
    model = load_base(arguments.base)
    adapted = adapt(model, arguments.rank, alpha)
    if arguments.resume:
        load(arguments.out, adapted)
    model.to(device)
    parameters = [weight for one in adapted.values() for weight in (one.a, one.b)]
    optimizer = torch.optim.AdamW(parameters, lr=arguments.rate, betas=(0.9, 0.98), weight_decay=0.0)
    print(f"{sum(w.numel() for w in parameters)} parameters beside the base, on {device}", flush=True)
    tokenizer = Tokenizer.from_file(str(arguments.base / "tokenizer.json"))
    context = model.shape.max_position_embeddings
    begun, step, seen, losses = time.monotonic(), 0, 0, []
    for tokens, counted in batches(tokenizer, arguments.data, arguments.tokens, context, arguments.seed):
        spent = time.monotonic() - begun
        progress = max(spent / (60 * arguments.minutes), step / arguments.steps if arguments.steps else 0.0)
        if progress >= 1.0:
            break
        optimizer.param_groups[0]["lr"] = arguments.rate * min(1.0, (step + 1) / 20, (1.0 - progress) / 0.7)
        tokens, counted = tokens.to(device), counted.to(device)[:, 1:]
        with torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext():
            logits = model.lm_head(model.hidden(tokens[:, :-1])[counted])
        loss = F.cross_entropy(logits.float(), tokens[:, 1:][counted])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + tokens.numel()
        losses.append(loss.detach())
        if step % 20 == 0 or step <= 3:
            mean = torch.stack(losses).mean().item()
            print(f"step {step} {spent:.0f}s loss {mean:.4f} {seen / (time.monotonic() - begun):.0f} tok/s", flush=True)
            losses = []
            save(arguments.out, adapted, arguments.rank, alpha)
    save(arguments.out, adapted, arguments.rank, alpha)
    print(f"done step {step}: {arguments.out}")


if __name__ == "__main__":
    main()
