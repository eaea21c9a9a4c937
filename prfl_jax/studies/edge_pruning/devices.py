"""Clients as PruneFL measured them, which stand in for the paper's machines: seconds of a local step and of sending.

PruneFL's public constants for Conv2 (`configs/femnist.py` of its code): a local step of the sparse network takes
1.2493 s and a part for each kept weight, by layer; of the dense one 2.2486 s in all; each kept weight that goes to and
fro takes 5.5616e-6 s. The paper's own machines are faster, so no seconds here are to be compared with its seconds.
"""

from __future__ import annotations

from typing import Any

from prfl_jax.submodel.layers import layer_table

STEP_S = 1.2492789765  # of the sparse network, without its weights
DENSE_STEP_S = 2.2486449218  # of the dense network
WEIGHT_S = (0.0, 7.098850e-6, 1.927325e-7, 1.782308e-7)  # for each kept weight of conv0, conv1, dense0, dense1
SENT_S = 5.561621025627e-6  # for each kept weight, both ways
_VALUE_BYTES = 4


def weights(width: float = 1.0) -> tuple[int, ...]:
    """Weights of Conv2's four kernels, images of 28 x 28 and 62 outputs."""
    return tuple(layer.weights for layer in layer_table("conv2", (28, 28, 1), 62, width))


def values(width: float = 1.0) -> int:
    """All values of it, with the biases."""
    return sum(layer.weights + layer.biases for layer in layer_table("conv2", (28, 28, 1), 62, width))


def whole_kib(retention: float) -> float:
    """KiB of the whole Conv2 at a retention: 4 bytes a kept value, and a bitmap of all weights unless all are kept.

    Examples:
      >>> [round(whole_kib(share)) for share in (0.037, 0.086)]  # Table 3: 1,760 and 3,024
      [1760, 3024]
    """
    bitmap = sum(weights()) / 8 if retention < 1.0 else 0.0
    return (bitmap + retention * values() * _VALUE_BYTES) / 1024


def set_devices(config: Any) -> None:
    """Sets network and clients: Conv2 of `config.model.width`, charged as the whole one with the same shares of layers.

    Seconds of a step, and bytes of kept values, are those of the full width; a mask costs the bits of the network
    that is trained. Links are equally fast both ways, nothing is drawn, and the server's is not shared.

    Args:
      config: whole; changed in place.
    """
    config.model.name, config.model.classes = "conv2", 62
    config.model.size_mb = values() * _VALUE_BYTES / 1e6
    own = weights(config.model.width)
    config.clients.step_s = (STEP_S,)
    config.clients.weight_s = tuple(s * n / k for s, n, k in zip(WEIGHT_S, weights(), own, strict=True))
    config.clients.up_mb_s = config.clients.down_mb_s = (2 * _VALUE_BYTES / SENT_S / 1e6,)
    config.clients.sigma = 0.0
    config.server.contention = False


DENSE = {"clients.step_s": (DENSE_STEP_S,), "clients.weight_s": ()}  # keys of a method that never prunes
