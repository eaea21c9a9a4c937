"""The measurements on held-out data that a density policy may ask for before it decides."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Measurements on the signal data (`eval.signal`), taken after the chunk; None where nobody asked for it.

    Attributes:
      client_accuracy: `[M]` accuracy of the model in each client's buffer slot; NaN where the slot is empty.
      client_loss: `[M]` mean loss of the same models; NaN where the slot is empty.
      server_accuracy: accuracy of FedAvg(B), the model of Algorithm 1, line 16.
    """

    client_accuracy: np.ndarray | None = None
    client_loss: np.ndarray | None = None
    server_accuracy: float | None = None


KINDS = frozenset(field.name for field in dataclasses.fields(Evidence))  # values of `DensityPolicy.needs`
OF_CLIENTS = frozenset({"client_accuracy", "client_loss"})  # measured on the models in the buffer
