"""Prints what tables of the most frequent next token reach on the data of a language model's config.

    python scripts/token_tables.py --config=configs/shakespeare.py

A table of k tokens predicts the most frequent successor of the last k ones, counted over the training samples. The
first column counts and scores all samples of the data set, the second one those that a run trains on and is tested on.
"""

from __future__ import annotations

import prfl_jax.system.early  # noqa: F401  # isort: skip  (before what takes long)

import copy
import dataclasses
from typing import Any

import numpy as np

from prfl_jax.config import cli
from prfl_jax.data import load, split
from prfl_jax.data.text.tables import table_accuracy
from prfl_jax.system.errors import UserError


def main(config: Any) -> None:
    uncut = copy.deepcopy(config.data)
    uncut.train_limit = uncut.test_limit = None
    every, data = load(uncut, config.seed), load(config.data, config.seed)
    if not data.sequence:
        raise UserError(
            f"config.data.name={data.name!r}: needed is a data set with a target at each step (docs/data.md)"
        )
    parts = split(data, config.data, config.clients.number, config.local.batch_size, config.seed)
    rows = np.concatenate(parts.clients)
    own = dataclasses.replace(
        data, x_train=data.x_train[rows], y_train=data.y_train[rows],
        x_test=data.x_test[parts.test], y_test=data.y_test[parts.test], writer_train=None, writer_test=None,
    )  # fmt: skip
    print("| tokens | data set | this run |\n|---|---|---|")
    for context in (1, 2, 3):
        print(f"| {context} | {table_accuracy(every, context):.1%} | {table_accuracy(own, context):.1%} |", flush=True)


if __name__ == "__main__":
    cli.run_with_config(main)
