"""The networks, one client's local round, evaluation and averaging in PyTorch, for the workers that use PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from common import Work
from torch import nn


class Net(nn.Module):
    """Convolutions with ReLU, some with a 2x2 max-pool, hidden dense layers with ReLU, an output layer."""

    def __init__(self, net: dict[str, Any]) -> None:
        super().__init__()
        height, width, channels = net["input"]
        self.pools: list[bool] = []
        self.convs, self.denses = nn.ModuleList(), nn.ModuleList()
        for side, padding, features, pool in net["convs"]:
            self.convs.append(nn.Conv2d(channels, features, side, padding=side // 2 if padding == "SAME" else 0))
            channels = features
            lost = 0 if padding == "SAME" else side - 1
            height, width = height - lost, width - lost
            if pool:
                height, width = height // 2, width // 2
            self.pools.append(pool)
        size, self.last = height * width * channels, (height, width, channels)
        for units in [*net["hidden"], net["classes"]]:
            self.denses.append(nn.Linear(size, units))
            size = units

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, pool in zip(self.convs, self.pools, strict=True):
            x = torch.relu(conv(x))
            x = nn.functional.max_pool2d(x, 2) if pool else x
        x = x.flatten(1)
        for dense in self.denses[:-1]:
            x = torch.relu(dense(x))
        return self.denses[-1](x)

    def take(self, params: dict[str, np.ndarray]) -> Net:
        """Loads Flax's params, so that the network computes the same function."""
        state = {}
        for k in range(len(self.convs)):
            state[f"convs.{k}.weight"] = params[f"conv{k}/kernel"].transpose(3, 2, 0, 1)
            state[f"convs.{k}.bias"] = params[f"conv{k}/bias"]
        for k in range(len(self.denses)):
            kernel = params[f"dense{k}/kernel"]
            if k == 0:  # Flax flattens [H, W, C], PyTorch [C, H, W]
                kernel = kernel.reshape(*self.last, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
            state[f"denses.{k}.weight"], state[f"denses.{k}.bias"] = kernel.T, params[f"dense{k}/bias"]
        self.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in state.items()})
        return self


class Images:
    """The workload's images as PyTorch expects them, `[N, C, H, W]` uint8."""

    def __init__(self, work: Work) -> None:
        self.x, self.y = torch.from_numpy(work.x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(work.y).long()
        self.x_test = torch.from_numpy(work.x_test.transpose(0, 3, 1, 2).copy())
        self.y_test = torch.from_numpy(work.y_test).long()

    def batch(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        at = torch.from_numpy(rows)
        return self.x[at].float().div_(255), self.y[at]


def local_round(model: nn.Module, images: Images, rows: np.ndarray, lr: float) -> float:
    """Trains `model` in place on the batches `rows` `[steps, B]`; returns the mean loss."""
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=lr), []
    for batch in rows:
        x, y = images.batch(batch)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def accuracy(model: nn.Module, images: Images, size: int = 100) -> float:
    """Returns the test accuracy, from 0 to 1."""
    right = 0
    with torch.no_grad():
        for x, y in zip(images.x_test.split(size), images.y_test.split(size), strict=True):
            right += int((model(x.float().div_(255)).argmax(1) == y).sum())
    return right / len(images.y_test)


class Mean:
    """The weighted sum of models' states, added one after another."""

    def __init__(self, model: nn.Module) -> None:
        self.sum = {key: torch.zeros_like(value) for key, value in model.state_dict().items()}

    def add(self, model: nn.Module, weight: float) -> None:
        with torch.no_grad():
            for key, value in model.state_dict().items():
                self.sum[key].add_(value, alpha=weight)
