"""The PyTorch reference of the suite `kernels`: local rounds of the same clients, in a separate process.

    python -m prfl_jax.benchmarks.torch_worker FILE.npz

Each line on stdin asks for one round of all clients; each answer is one line of JSON. The worker imports neither JAX
nor this package, so that two thread pools never share a process.

The loop is the usual one of a simulation in PyTorch, with one module for each client. A round loads the model that the
client was sent, draws batches by index from the uint8 images, normalises them, and takes the SGD steps; the trained
module is kept as the result.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import nn


class TorchConv2(nn.Module):
    """Conv2 with the widths of its kernels: images `[B, C, H, W]` to logits `[B, classes]`."""

    def __init__(self, kernels: list[tuple[int, ...]]) -> None:
        super().__init__()
        (kh0, _, in0, out0), (kh1, _, in1, out1), (in2, out2), (in3, out3) = kernels
        self.conv0 = nn.Conv2d(in0, out0, kh0, padding=kh0 // 2)
        self.conv1 = nn.Conv2d(in1, out1, kh1, padding=kh1 // 2)
        self.dense0, self.dense1 = nn.Linear(in2, out2), nn.Linear(in3, out3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.conv0(x)), 2)
        x = nn.functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        return self.dense1(torch.relu(self.dense0(x.flatten(1))))


LAYERS = ("conv0", "conv1", "dense0", "dense1")


def state_dict(params: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Converts Flax's params by `layer/leaf` to a `state_dict` that computes the same function."""
    out = {}
    channels = params["conv1/bias"].shape[0]
    for layer in LAYERS:
        kernel = params[f"{layer}/kernel"]
        if layer.startswith("conv"):
            kernel = kernel.transpose(3, 2, 0, 1)
        elif layer == "dense0":  # Flax flattens [H, W, C], PyTorch [C, H, W]
            side = round((kernel.shape[0] // channels) ** 0.5)
            kernel = kernel.reshape(side, side, channels, -1).transpose(3, 2, 0, 1).reshape(kernel.shape[1], -1)
        else:
            kernel = kernel.T
        out[f"{layer}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel))
        out[f"{layer}.bias"] = torch.from_numpy(params[f"{layer}/bias"].copy())
    return out


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor, classes: int
) -> torch.Tensor:
    """Takes one SGD step on the sigmoid loss, mean over batch and classes; returns the loss."""
    optimizer.zero_grad()
    targets = nn.functional.one_hot(y, classes).to(torch.float32)
    loss = nn.functional.binary_cross_entropy_with_logits(model(x), targets)
    loss.backward()
    optimizer.step()
    return loss.detach()


class Clients:
    """All clients of one simulation.

    Args:
      data: `x` `[N, H, W, C]` uint8, `y` `[N]`, `index` `[M, L]`, `size` `[M]`.
      params: the model that every client is sent, by `layer/leaf`.
    """

    def __init__(
        self, data: dict[str, np.ndarray], params: dict[str, np.ndarray], steps: int, batch_size: int, lr: float,
        device: str,
    ) -> None:  # fmt: skip
        self.device = torch.device(device)
        self.x = torch.from_numpy(data["x"].transpose(0, 3, 1, 2).copy()).to(self.device)
        self.y = torch.from_numpy(data["y"].astype(np.int64)).to(self.device)
        self.index = torch.from_numpy(data["index"].astype(np.int64)).to(self.device)
        self.size = [int(n) for n in data["size"]]
        self.steps, self.batch_size, self.lr = steps, batch_size, lr
        kernels = [params[f"{layer}/kernel"].shape for layer in LAYERS]
        self.models = [TorchConv2(kernels).to(self.device) for _ in self.size]
        sent = {key: value.to(self.device) for key, value in state_dict(params).items()}
        self.sent = [{key: value.clone() for key, value in sent.items()} for _ in self.size]
        self.classes = kernels[-1][-1]

    def round(self) -> float:
        """Trains every client for one local round; returns the mean loss."""
        losses = []
        for client, model in enumerate(self.models):
            model.load_state_dict(self.sent[client])
            optimizer = torch.optim.SGD(model.parameters(), lr=self.lr)
            order = torch.randperm(self.size[client], device=self.device)[: self.steps * self.batch_size]
            for rows in self.index[client][order].split(self.batch_size):
                x = self.x[rows].float().div_(255)
                losses.append(train_step(model, optimizer, x, self.y[rows], self.classes))
        return float(torch.stack(losses).mean())  # waits for the device


def main() -> None:
    with np.load(sys.argv[1], allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    options = json.loads(str(arrays.pop("options")))
    torch.set_num_threads(options.pop("threads"))
    if options["device"] == "cuda" and not torch.cuda.is_available():
        options["device"] = "cpu"
    data = {key: arrays.pop(key) for key in ("x", "y", "index", "size")}
    clients = Clients(data, arrays, **options)
    about = {"version": torch.__version__, "threads": torch.get_num_threads(), "device": options["device"]}

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), flush=True)

    answer(about)
    for _ in sys.stdin:
        start = time.perf_counter()
        loss = clients.round()
        answer({"seconds": time.perf_counter() - start, "loss": loss})


if __name__ == "__main__":
    main()
