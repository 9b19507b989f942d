"""Muon (Jordan et al. 2024): momentum whose update is made orthogonal by five Newton-Schulz steps."""

import torch
from torch import Tensor


class Muon(torch.optim.Optimizer):
    """For the matrices of the layers."""

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
    kept = x.dtype
    if x.is_cuda:
        x = x.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.to(kept)
