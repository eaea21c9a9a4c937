"""Splits a data set: which training samples each client holds, which are held out, and which test the models."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from prfl_jax.data.check import noun_of
from prfl_jax.data.dataset import Dataset
from prfl_jax.data.keys import generator
from prfl_jax.data.partition import PARTITIONS, Clients, Pool, with_too_few
from prfl_jax.data.sources import DATA_SETS, limited
from prfl_jax.registry import Registry
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import IMAGES


@dataclasses.dataclass(frozen=True)
class Signal:
    """One choice of `eval.signal`: the samples that the models are scored on for density decisions and early stopping.

    Attributes:
        held_out: training samples that no client holds (`Split.holdout`); False: the test samples.
    """

    held_out: bool


# the choices of `eval.signal`
SIGNALS: Registry[Signal] = Registry("eval.signal", {"heldout": Signal(True), "test": Signal(False)})


@dataclasses.dataclass(frozen=True)
class Split:
    """Who holds which training samples.

    Attributes:
        clients: per client the rows of `Dataset.x_train` it holds, ascending, int64.
        holdout: rows that no client holds, for early stopping, ascending, int64.
        test: rows of `Dataset.x_test` the models are tested on: all, but for `partition=writer` or `writer_iid`
            those of the chosen writers, where these wrote any (LEAF splits each writer's images; MNIST's test
            writers are others).
        summary: the partition in numbers, for the report (plain JSON types).
    """

    clients: tuple[np.ndarray, ...]
    holdout: np.ndarray
    test: np.ndarray
    summary: dict[str, Any]


def split(dataset: Dataset, data_cfg: Any, num_clients: int, batch_size: int, seed: int) -> Split:
    """Hold a part of the training samples out, share the rest over the clients.

    Held out are `holdout_fraction` of the samples in play (for `partition=writer` and
    `writer_iid`: of the chosen writers' samples), at most `holdout_max`, drawn uniformly.
    Both draws depend on the seed alone, so all methods that are compared share them.
    `writer_iid` shuffles the samples that `writer` deals out by writer, so that both
    train on the same ones.

    Args:
        dataset: from `load`.
        data_cfg: the group `data` of the config.
        num_clients: M.
        batch_size: the least number of samples a client must hold.
        seed: of the experiment.

    Raises:
        UserError: the settings do not fit the data, or a client is left without a
            full batch; the message names it.
    """
    partition = PARTITIONS.find(data_cfg.partition)
    if dataset.sequence and partition.by_label:
        raise UserError(
            f"data.partition={data_cfg.partition!r}: deals samples by label, and those of {dataset.name} have a target "
            f"at each step; allowed: {', '.join(PARTITIONS.with_trait(lambda choice: not choice.by_label))}"
        )
    noun = noun_of(dataset.x_train)
    pool, test = np.arange(len(dataset.y_train)), np.arange(len(dataset.y_test))
    if partition.chosen_writers:
        pool, test = _writers_rows(dataset, data_cfg.writers, data_cfg.min_images_per_writer)
        pool = limited(pool, "train", data_cfg.train_limit, seed)
        test = limited(test, "test", data_cfg.test_limit, seed)
    held = min(round(data_cfg.holdout_fraction * len(pool)), data_cfg.holdout_max)
    holdout = np.sort(generator(seed, "data/holdout").choice(pool, held, replace=False))
    pool = np.setdiff1d(pool, holdout, assume_unique=True)

    if not len(pool):
        raise UserError(
            f"data.holdout_fraction={data_cfg.holdout_fraction}: {held} held-out {noun} leave none to train on"
        )

    if num_clients > len(pool):  # before arrays are made of so many
        raise UserError(f"clients.number={num_clients}: allowed is at most {len(pool)}, the {noun} to train on")

    writers = None if dataset.writer_train is None else dataset.writer_train[pool]
    labels = np.zeros(len(pool), np.int32) if dataset.sequence else dataset.y_train[pool]
    samples = Pool(labels, dataset.num_classes, writers, noun)
    parts, extra = partition.deal(samples, data_cfg, num_clients, batch_size, generator(seed, "data/partition"))
    _check_batches(parts, batch_size, data_cfg.partition, noun)
    clients = tuple(np.sort(pool[part]) for part in parts)
    summary = _summary(dataset, clients, holdout, test)
    unused = len(pool) - sum(summary["sizes"])
    return Split(clients, holdout, test, {"partition": data_cfg.partition, **extra, **summary, "unused": unused})


def _writers_rows(dataset: Dataset, count: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and test rows of the `count` lowest writer ids among those with at least `least` training samples."""
    if dataset.writer_train is None:
        one = "an image" if dataset.kind is IMAGES else "a sample"
        raise UserError(
            f"data.partition: {dataset.name} does not say who wrote {one}; "
            f"allowed are {', '.join(PARTITIONS.with_trait(lambda choice: not choice.chosen_writers))}, "
            f"or data.name={' or '.join(DATA_SETS.with_trait(lambda source: source.has_writers is True))}"
        )
    ids, counts = np.unique(dataset.writer_train, return_counts=True)
    ids = ids[counts >= least]
    if not 1 <= count <= len(ids):
        raise UserError(
            f"data.writers={count}: allowed are 1..{len(ids)}, so many have data.min_images_per_writer={least} "
            f"{noun_of(dataset.x_train)}"
        )
    train = np.flatnonzero(np.isin(dataset.writer_train, ids[:count]))
    test = np.arange(len(dataset.y_test))
    if dataset.writer_test is not None and np.isin(dataset.writer_test, ids[:count]).any():
        test = np.flatnonzero(np.isin(dataset.writer_test, ids[:count]))
    return train, test


def _check_batches(parts: Clients, batch_size: int, kind: str, noun: str) -> None:
    few = with_too_few(parts, batch_size, noun)
    if few:
        raise UserError(
            f"data.partition={kind!r}: {few}, fewer than local.batch_size={batch_size}; "
            f"take fewer clients, smaller batches or more {noun}"
        )


def _who_wrote(dataset: Dataset, clients: tuple[np.ndarray, ...], test: np.ndarray) -> str | None:
    """Whether the test samples are by the clients' own writers: `own`, `others` or `both`; None: not known."""
    if dataset.writer_train is None or dataset.writer_test is None:
        return None
    own = np.isin(dataset.writer_test[test], dataset.writer_train[np.concatenate(clients)])
    return "own" if own.all() else "both" if own.any() else "others"


def _summary(
    dataset: Dataset, clients: tuple[np.ndarray, ...], holdout: np.ndarray, test: np.ndarray
) -> dict[str, Any]:
    writers = dataset.writer_train
    return {
        "sizes": [len(rows) for rows in clients],
        "labels": None if dataset.sequence else [dataset.labels(rows).tolist() for rows in clients],
        "writers": None if writers is None else [len(np.unique(writers[rows])) for rows in clients],
        "holdout": len(holdout),
        "test": len(test),
        "test_writers": _who_wrote(dataset, clients, test),
    }
