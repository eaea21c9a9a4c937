"""The rules that tie the keys of `data` to each other and to the clients; `config/validate.py` runs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prfl_jax.data.partition import PARTITIONS
from prfl_jax.data.pixels import NORMALIZATIONS
from prfl_jax.data.sources import DATA_SETS
from prfl_jax.system.errors import refuse
from prfl_jax.tasks import IMAGES, find_task


def _channels(flat: Mapping[str, Any]) -> None:
    name, normalize = flat["data.name"], flat["data.normalize"]
    source = DATA_SETS.known(name)
    images = source is not None and source.kind is IMAGES
    channels = source.shape[2] if source is not None and images and source.shape is not None else None
    if channels is not None and not NORMALIZATIONS.find(normalize).takes(channels):
        takes = " or ".join(NORMALIZATIONS.with_trait(lambda choice: choice.takes(channels)))
        has = "one channel" if channels == 1 else f"{channels} channels"
        raise refuse("data.normalize", normalize, f"{takes} with data.name={name!r} ({has})")


def _writers(flat: Mapping[str, Any]) -> None:
    partition, over, number = flat["data.partition"], flat["data.split_writers_over"], flat["clients.number"]
    choice, source = PARTITIONS.known(partition), DATA_SETS.known(flat["data.name"])
    if over is not None and not (choice is not None and choice.splits_writers):
        raise refuse("data.split_writers_over", over, f"None with data.partition={partition!r}")
    if choice is None or not choice.chosen_writers:
        return
    if source is not None and source.has_writers is False:
        *first, last = PARTITIONS.with_trait(lambda other: not other.chosen_writers)
        allowed = f"{', '.join(first)} or {last} with data.name={flat['data.name']!r}"
        raise refuse("data.partition", partition, allowed)
    if flat["data.writers"] * (1 if over is None else 2) < number:
        allowed = f"at least clients.number={number} with data.partition={partition!r}"
        raise refuse("data.writers", flat["data.writers"], allowed)


def _batches(flat: Mapping[str, Any]) -> None:
    limit, least = flat["data.train_limit"], flat["clients.number"] * flat["local.batch_size"]
    if limit is not None and limit < least:
        raise refuse("data.train_limit", limit, f"None or at least {least}, one batch for every client")


def _task(flat: Mapping[str, Any]) -> None:
    task, partition = find_task(flat["task.name"]), PARTITIONS.known(flat["data.partition"])
    if task.sequence and partition is not None and partition.by_label:
        fitting = PARTITIONS.with_trait(lambda choice: not choice.by_label)
        allowed = f"{', '.join(fitting)} with task.name={flat['task.name']!r}"
        raise refuse("data.partition", flat["data.partition"], allowed)


# run by `config/validate.py`
CHECKS = (_channels, _writers, _batches, _task)
