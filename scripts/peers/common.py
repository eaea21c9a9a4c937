"""Code that all benchmark workers share: reading the workload, and the protocol with the benchmark. NumPy only.

A worker is started as `python WORKER.py FILE.npz` with the Python of its own environment. Each line on
its stdin is `round` or `evaluate`, each answer one line of JSON on its stdout: `seconds`, taken in the
worker, and the mean training `loss` of a round or the test `accuracy`.
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
    """FedAvg on some users' images.

    Attributes:
      x, y: training images `[N, H, W, C]` uint8 and labels `[N]`.
      index: `[users, L]` which of them each user has.
      x_test, y_test: test images and labels.
      params: the first server model by `layer/leaf`, kernels as Flax has them.
      users, cohort: how many there are, how many train in a round (all, or drawn anew each round).
      steps, batch_size, lr: of one local round.
      net: `input` shape, `convs` as (kernel side, padding, channels, pool), `hidden` units, `classes`.
      threads: cores.
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
        """The users of a round."""
        if self.cohort == self.users:
            return list(range(self.users))
        return np.random.default_rng([0, number]).choice(self.users, self.cohort, replace=False).tolist()

    def rows(self, user: int, number: int) -> np.ndarray:
        """`[steps, batch_size]` images of a user's local round, drawn without replacement, again and again."""
        rng, needed = np.random.default_rng([1, number, user]), self.steps * self.batch_size
        turns = -(-needed // self.index.shape[1])
        order = np.concatenate([rng.permutation(self.index[user]) for _ in range(turns)])[:needed]
        return order.reshape(self.steps, self.batch_size)


def channel() -> TextIO:
    """The worker's stdout for answers alone; what a framework prints goes to stderr."""
    sys.stdout.flush()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


class Conversation:
    """Hears what the benchmark asks for, and answers."""

    def __init__(self, answers: TextIO, about: dict[str, Any]) -> None:
        self._answers, self._start = answers, 0.0
        self._say(about)

    def _say(self, value: dict[str, Any]) -> None:
        print(json.dumps(value), file=self._answers, flush=True)

    def wait(self, evaluate: Callable[[], float]) -> bool:
        """Until a round is asked for; False: there will be no more. `evaluate` returns the test accuracy."""
        for line in iter(sys.stdin.readline, ""):
            self._start = time.perf_counter()
            if line.strip() == "round":
                return True
            accuracy = float(evaluate())
            self._say({"seconds": time.perf_counter() - self._start, "accuracy": accuracy})
        return False

    def done(self, loss: float | None) -> None:
        """The round that was asked for is over; its mean loss, None where the framework does not say."""
        seconds = time.perf_counter() - self._start
        self._say({"seconds": seconds, "loss": None if loss is None else float(loss)})


def serve(
    answers: TextIO, about: dict[str, Any], work_round: Callable[[], float | None], evaluate: Callable[[], float]
) -> None:
    """Answers until stdin ends."""
    conversation = Conversation(answers, about)
    while conversation.wait(evaluate):
        conversation.done(work_round())
