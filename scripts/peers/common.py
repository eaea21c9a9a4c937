"""Reads the workload and talks to the benchmark; all workers in this folder use it. NumPy only.

A worker is started as `python WORKER.py FILE.npz` with the Python of its own environment. Each line on its stdin is
`round` or `evaluate`. Each answer is one line of JSON on its stdout: `seconds`, measured in the worker, and the mean
training `loss` of a round or the test `accuracy`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np


class Work:
    """One workload of FedAvg, read from the benchmark's file.

    Attributes:
      x, y: training images `[N, H, W, C]` uint8 and labels `[N]`.
      index: `[users, L]`, the rows of `x` that each user has.
      x_test, y_test: test images and labels.
      params: the first server model by `layer/leaf`, kernels as Flax has them.
      users, cohort: number of users, and of those that train in a round (all, or drawn for each round).
      steps, batch_size, lr: of one local round.
      net: `input` shape, `convs` as (kernel side, padding, channels, pool), `hidden` units, `classes`.
      threads: number of cores.
    """

    def __init__(self, file: str) -> None:
        with np.load(file, allow_pickle=False) as arrays:
            options = json.loads(str(arrays["options"]))
            self.x, self.y, self.index = arrays["x"], arrays["y"], arrays["index"]
            self.x_test, self.y_test = arrays["x_test"], arrays["y_test"]
            self.params = {key[2:]: arrays[key] for key in arrays.files if key.startswith("p/")}
        self.users, self.cohort = len(self.index), int(options["cohort"])
        self.steps, self.batch_size, self.lr = options["steps"], options["batch_size"], options["lr"]
        self.net: dict[str, Any] = options["net"]
        self.threads = int(options["threads"])

    def draw(self, number: int) -> list[int]:
        """Draws the users of round `number`."""
        if self.cohort == self.users:
            return list(range(self.users))
        return np.random.default_rng([0, number]).choice(self.users, self.cohort, replace=False).tolist()

    def rows(self, user: int, number: int) -> np.ndarray:
        """Draws the batches `[steps, batch_size]` of a user's local round from permutations of its images."""
        rng, needed = np.random.default_rng([1, number, user]), self.steps * self.batch_size
        turns = -(-needed // self.index.shape[1])
        order = np.concatenate([rng.permutation(self.index[user]) for _ in range(turns)])[:needed]
        return order.reshape(self.steps, self.batch_size)


def channel() -> TextIO:
    """Returns the worker's stdout, for answers only; what a framework prints goes to stderr from now on."""
    sys.stdout.flush()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


class Conversation:
    """Reads the benchmark's requests and writes the answers; the first answer is `about`."""

    def __init__(self, answers: TextIO, about: dict[str, Any]) -> None:
        self._answers, self._start = answers, 0.0
        self._say(about)

    def _say(self, value: dict[str, Any]) -> None:
        print(json.dumps(value), file=self._answers, flush=True)

    def wait(self, evaluate: Callable[[], float]) -> bool:
        """Waits for the request of a round, answers evaluations until then; returns False once stdin has ended.

        Args:
          evaluate: returns the test accuracy.
        """
        for line in iter(sys.stdin.readline, ""):
            self._start = time.perf_counter()
            if line.strip() == "round":
                return True
            accuracy = float(evaluate())
            self._say({"seconds": time.perf_counter() - self._start, "accuracy": accuracy})
        return False

    def done(self, loss: float | None) -> None:
        """Answers that the round has ended, with its mean loss; None if the framework does not report it."""
        seconds = time.perf_counter() - self._start
        self._say({"seconds": seconds, "loss": None if loss is None else float(loss)})


def serve(
    answers: TextIO, about: dict[str, Any], work_round: Callable[[], float | None], evaluate: Callable[[], float]
) -> None:
    """Answers requests until stdin ends."""
    conversation = Conversation(answers, about)
    while conversation.wait(evaluate):
        conversation.done(work_round())
