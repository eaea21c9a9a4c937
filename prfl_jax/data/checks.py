"""The rules that tie the keys of `data` to each other and to the clients; `config/validate.py` runs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prfl_jax.data.sources import BY_WRITER
from prfl_jax.system.errors import refuse

_GREY = ("mnist_embedded", "mnist_by_writer", "femnist")  # one channel
_NO_WRITERS = ("mnist_embedded", "cifar10")


def _data(flat: Mapping[str, Any]) -> None:
    name, limit = flat["data.name"], flat["data.train_limit"]
    if name in _GREY and flat["data.normalize"] == "cifar10":
        raise refuse("data.normalize", "cifar10", f"unit or inverted with data.name={name!r} (one channel)")
    partition = flat["data.partition"]
    over = flat["data.split_writers_over"]
    if over is not None and partition != "writer":
        raise refuse("data.split_writers_over", over, f"None with data.partition={partition!r}")
    if partition in BY_WRITER:
        if name in _NO_WRITERS:
            raise refuse("data.partition", partition, f"iid, dirichlet, labels or fedmp with data.name={name!r}")
        most = flat["data.writers"] * (1 if flat["data.split_writers_over"] is None else 2)
        if most < flat["clients.number"]:
            allowed = f"at least clients.number={flat['clients.number']} with data.partition={partition!r}"
            raise refuse("data.writers", flat["data.writers"], allowed)
    least = flat["clients.number"] * flat["local.batch_size"]
    if limit is not None and limit < least:
        raise refuse("data.train_limit", limit, f"None or at least {least}, one batch for every client")


CHECKS = (_data,)
