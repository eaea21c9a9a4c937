"""Uploads (`transport.upload`): which values of its update a client sends, and how many bytes these have.

How many values each client sends follows from speeds and sizes, so the host knows it before anything is trained
(NumPy only; `encode` imports JAX when it is traced).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from prfl_jax.clock.types import Costs
from prfl_jax.registry import Registry


class UploadSizes(NamedTuple):
    """Sizes of the sub-models that clients upload.

    Attributes:
      values: `[M]` trained values of each client's sub-model, at least 1.
      whole_bytes: `[M]` bytes of all of them, with the model's state.
      value_bytes: bytes of one value.
      state: `[M]` values of the state of each client's sub-model, which is always sent whole.
      mb_s: `[M]` MB/s that each client sends with by `clients.up_mb_s`, whatever a trace of `faults.bandwidth` says.
    """

    values: np.ndarray
    whole_bytes: np.ndarray
    value_bytes: float
    state: np.ndarray | int
    mb_s: np.ndarray


@dataclasses.dataclass(frozen=True)
class Upload:
    """One choice of `transport.upload`.

    Attributes:
      values: `UploadSizes` -> `[M]` values that each client sends of its update; None: all, and nothing below is used.
      encode: (layout, sent, trained, masks, unsent, values) -> (the model as the server gets it, the next `unsent`),
        for one client, traced. `unsent` is what the client has not sent yet of earlier updates.
      init: params -> `unsent` before the first round.
    """

    values: Callable[[UploadSizes], np.ndarray] | None = None
    encode: Callable[..., tuple[Any, Any]] | None = None
    init: Callable[[Any], Any] | None = None

    @property
    def compresses(self) -> bool:
        """Whether clients send a part of their updates and keep the rest."""
        return self.values is not None

    def charge(self, costs: Costs, sizes: UploadSizes) -> Costs:
        """The costs of what clients send instead of their whole sub-models."""
        if self.values is None:
            return costs
        values = self.values(sizes)
        saved = sizes.whole_bytes - sparse_bytes(sizes, values)
        return dataclasses.replace(costs, up_bytes=costs.up_bytes - saved, values_up=values)


def sparse_bytes(sizes: UploadSizes, values: np.ndarray) -> np.ndarray:
    """`[M]` bytes of so many values of each sub-model, with where they are: the cheaper of a bitmap and indices.

    An index has as many bits as number the sub-model's values. All values are sent where that takes no more bytes.
    """
    bits = np.ceil(np.log2(np.maximum(sizes.values, 2))).astype(np.int64)
    positions = np.minimum(-(-values * bits // 8), -(-sizes.values // 8))
    sent = np.rint((values + sizes.state) * sizes.value_bytes).astype(np.int64)
    return np.minimum(sent + positions, sizes.whole_bytes)


def fitting_the_median(sizes: UploadSizes) -> np.ndarray:
    """`[M]` values: as many as fit the time in which the median client uploads all, from 1 to all of them.

    The source, FlexCom (Li et al. 2021), compresses by the clients' links; FedMP does not say how much, and this is our
    reading.
    """
    seconds = sizes.whole_bytes / sizes.mb_s  # times 1e-6
    # a client that needs exactly this time sends all: the product may be an ulp below
    budget = np.median(seconds) * sizes.mb_s * (1 + 1e-9)
    least, most = np.ones_like(sizes.values), sizes.values.copy()
    while (least < most).any():  # a binary search: bytes grow with the number of values
        middle = least + (most - least + 1) // 2
        fits = sparse_bytes(sizes, middle) <= budget
        least, most = np.where(fits, middle, least), np.where(fits, most, middle - 1)
    return np.where(sparse_bytes(sizes, least) < sizes.whole_bytes, least, sizes.values)


def _largest(*args: Any) -> tuple[Any, Any]:
    from prfl_jax.transport import topk

    return topk.encode(*args)


def _nothing_unsent(params: Any) -> Any:
    from prfl_jax.transport import topk

    return topk.init(params)


# clients send their whole updates
WHOLE = Upload()

# values of `transport.upload`
UPLOADS: Registry[Upload] = Registry(
    "transport.upload", {"whole": WHOLE, "topk": Upload(fitting_the_median, _largest, _nothing_unsent)}
)


def find_upload(name: str) -> Upload:
    """The choice that `transport.upload` names.

    Raises:
      UserError: there is no such choice.
    """
    return UPLOADS.find(name)
