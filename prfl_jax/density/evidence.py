"""The measurements that a density policy may ask for before it decides: on held-out data, or from training itself."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Measurements taken after the chunk; None where nobody asked for it.

    All but `train_loss` are measured on the signal data (`eval.signal`).

    A score is the value of the task's headline metric, or its negative where lower is better: the accuracy in a
    classification, minus the perplexity of a language model. Of two scores the higher one is better, in any task.
    Where a score is measured, the accuracy of the same model is there too.

    Attributes:
      client_accuracy: `[M]` accuracy of the model in each client's buffer slot; NaN where the slot is empty.
      client_loss: `[M]` mean loss of the same models; NaN where the slot is empty.
      server_accuracy: accuracy of FedAvg(B), the model of Algorithm 1, line 16.
      client_score: `[M]` scores of the models in the buffer; NaN where the slot is empty.
      server_score: score of FedAvg(B).
      train_loss: `[M]` mean training loss of each client's last arrival since the last decision; NaN where it had none.
        The clients compute it anyway, so nothing is evaluated for it.
    """

    client_accuracy: np.ndarray | None = None
    client_loss: np.ndarray | None = None
    server_accuracy: float | None = None
    client_score: np.ndarray | None = None
    server_score: float | None = None
    train_loss: np.ndarray | None = None

    @property
    def of_clients(self) -> np.ndarray | None:
        """`[M]` what recovery follows: the scores; accuracies where a policy asks for these alone."""
        return self.client_accuracy if self.client_score is None else self.client_score

    @property
    def of_server(self) -> float | None:
        """What the stop rule follows, likewise."""
        return self.server_accuracy if self.server_score is None else self.server_score


KINDS = frozenset(field.name for field in dataclasses.fields(Evidence))  # values of `DensityPolicy.needs`
OF_CLIENTS = frozenset({"client_accuracy", "client_loss", "client_score"})  # measured on the models in the buffer
OF_TRAINING = frozenset({"train_loss"})  # reported by the clients with their updates
OF_SERVER = frozenset({"server_accuracy", "server_score"})  # measured on FedAvg(B)
