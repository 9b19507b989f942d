"""The Llama architecture as Hugging Face's LlamaForCausalLM computes it, in plain torch."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Cache = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Shape:
    """The fields of config.json that decide the computation."""

    vocab_size: int
    hidden_size: int = 256
    intermediate_size: int = 704
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10_000.0

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


# Beside the vocabulary. `clerk` has 6.5 million parameters with 4,096 tokens: 6.6 MB in the engine's eight bits.
# `tiny` is for trying the whole way in minutes.
SHAPES = {
    "clerk": {},
    "tiny": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4},
}


class Norm(nn.Module):
    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE with the two halves of a head as the pairs. x: [batch, heads, len, head_dim]."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.heads, self.kv_heads, self.dim = shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim
        size = shape.hidden_size
        self.q_proj = nn.Linear(size, self.heads * self.dim, bias=False)
        self.k_proj = nn.Linear(size, self.kv_heads * self.dim, bias=False)
        self.v_proj = nn.Linear(size, self.kv_heads * self.dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.dim, size, bias=False)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, length, _ = x.shape
        q = self.q_proj(x).view(batch, length, self.heads, self.dim).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, self.kv_heads, self.dim).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.kv_heads, self.dim).transpose(1, 2)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return self.attend(*self.project(x, cos, sin), None)


class Mlp(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.input_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = Mlp(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = Norm(shape.hidden_size, shape.rms_norm_eps)


class Llama(nn.Module):
    """Parameter names are those of a Hugging Face checkpoint."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.model = Body(shape)
        self.lm_head = nn.Linear(shape.hidden_size, shape.vocab_size, bias=False)
        half = shape.head_dim // 2
        frequencies = shape.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.outer(torch.arange(shape.max_position_embeddings, dtype=torch.float64), frequencies)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)
        self.reset()

    def reset(self) -> None:
        """Starts each block as the identity: what writes into the stream begins at zero."""
        for name, weight in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(weight)
            elif "embed_tokens" in name:
                nn.init.normal_(weight, std=0.5)
            elif weight.dim() == 2:
                nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
        self.look_back()
        with torch.no_grad():
            self.lm_head.weight.copy_(0.05 * self.model.embed_tokens.weight)

    @torch.no_grad()
    def look_back(self) -> None:
        """Starts the first layer's heads at the tokens one, two, three and four before, whatever they are.

        Looking up what followed a token needs such heads first; from noise they take thousands of steps
        to appear. All embeddings share one coordinate, which carries the fixed query and key.
        """
        attention, dim, half = self.model.layers[0].self_attn, self.shape.head_dim, self.shape.head_dim // 2
        self.model.embed_tokens.weight[:, 0] = 2.0
        # The norm divides by the root of the mean square: 4 of the shared coordinate, 0.25 of the rest.
        shared = 2.0 / ((4.0 + 0.25 * (self.shape.hidden_size - 1)) / self.shape.hidden_size) ** 0.5
        level, pairs = 6.0 / shared, 5
        attention.q_proj.weight.zero_()
        attention.k_proj.weight.zero_()
        for head in range(self.shape.num_attention_heads):
            # A query turned back by its distance meets an unturned key where that distance is made up.
            query = attention.q_proj.weight[head * dim : (head + 1) * dim, 0]
            query[:pairs] = self.cos[head + 1, :pairs] * level
            query[half : half + pairs] = -self.sin[head + 1, :pairs] * level
        for head in range(self.shape.num_key_value_heads):
            attention.k_proj.weight[head * dim : head * dim + pairs, 0] = level
        nn.init.normal_(attention.o_proj.weight, std=0.5 * dim**-0.5)

    def hidden(self, tokens: Tensor) -> Tensor:
        """tokens: [batch, len] -> [batch, len, hidden], ready for the head."""
        length = tokens.shape[1]
        cos, sin = self.cos[:length], self.sin[:length]
        x = self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            x = layer(x, cos, sin)
        return self.model.norm(x)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.lm_head(self.hidden(tokens))

    @torch.inference_mode()
    def generate(self, prompts: list[list[int]], end: int, limit: int) -> list[list[int]]:
        """Greedy continuations up to `end` (not included) or `limit` tokens; keys and values are kept."""
        rows, longest = len(prompts), max(map(len, prompts))
        device = self.cos.device
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        tokens = torch.zeros(rows, longest, dtype=torch.long, device=device)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = torch.tensor(prompt, device=device)
        size = min(longest + limit, self.shape.max_position_embeddings)
        logits, cache = self.prefill(tokens, lengths, size)
        outputs: list[list[int]] = [[] for _ in prompts]
        open_rows = set(range(rows))
        positions = lengths.clone()
        for _ in range(size - longest):
            chosen = logits.argmax(dim=-1)
            ids = chosen.tolist()
            for row in list(open_rows):
                if ids[row] == end:
                    open_rows.remove(row)
                else:
                    outputs[row].append(ids[row])
            if not open_rows:
                break
            logits = self.step(chosen, positions, cache)
            positions += 1
        return outputs

    def prefill(self, tokens: Tensor, lengths: Tensor, size: int) -> tuple[Tensor, Cache]:
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        x = self.model.embed_tokens(tokens)
        cache: Cache = []
        for layer in self.model.layers:
            q, k, v = layer.self_attn.project(layer.input_layernorm(x), cos, sin)
            room = (0, 0, 0, size - k.shape[2])
            cache.append((F.pad(k, room), F.pad(v, room)))
            x = x + layer.self_attn.attend(q, k, v, None)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        last = x[torch.arange(len(lengths), device=x.device), lengths - 1]
        return self.lm_head(self.model.norm(last)), cache

    def step(self, chosen: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        rows = torch.arange(len(chosen), device=chosen.device)
        cos, sin = self.cos[positions][:, None, None], self.sin[positions][:, None, None]
        x = self.model.embed_tokens(chosen[:, None])
        mask = (torch.arange(cache[0][0].shape[2], device=positions.device) <= positions[:, None])[:, None, None]
        for layer, (keys, values) in zip(self.model.layers, cache):
            q, k, v = layer.self_attn.project(layer.input_layernorm(x), cos, sin)
            keys[rows, :, positions], values[rows, :, positions] = k[:, :, 0], v[:, :, 0]
            x = x + layer.self_attn.attend(q, keys, values, mask)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.lm_head(self.model.norm(x[:, 0]))

    def save(self, folder: Path, ids: dict[str, int], half: bool = False) -> None:
        """Writes config.json and model.safetensors as Hugging Face reads them; with `half` in two bytes a weight, which is
        finer than the engine's one."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            **asdict(self.shape),
            "head_dim": self.shape.head_dim,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": False,
            "rope_scaling": None,
            "torch_dtype": "bfloat16" if half else "float32",
            **ids,
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        kind = torch.bfloat16 if half else torch.float32
        state = {name: weight.detach().to("cpu", kind).contiguous() for name, weight in self.state_dict().items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    @classmethod
    def load(cls, folder: Path) -> "Llama":
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        shape = Shape(**{name: config[name] for name in Shape.__dataclass_fields__})
        model = cls(shape)
        model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
        return model.eval()
