"""FedAvg: every round waits for all clients and averages their full models by `aggregation.client_weight`.

McMahan, Moore, Ramage, Hampson and Aguera y Arcas, "Communication-Efficient Learning of Deep Networks from
Decentralized Data" (AISTATS 2017). `full_models` makes the rows of other methods that train full models.
"""

from __future__ import annotations

import dataclasses

from prfl_jax.strategies.method import EVERYBODY, Method

FEDAVG = Method(
    submodel="full",
    density="full",
    aggregation="fedavg",
    window=EVERYBODY,
    transport="one_copy",
    local="sgd",
    source="McMahan et al. 2017, all clients in each round (PR-FL's Syn-FL)",
)


def full_models(source: str, **choices: object) -> Method:
    """FedAvg's row with other choices: a method whose clients all train the full model."""
    return dataclasses.replace(FEDAVG, source=source, **choices)  # type: ignore[arg-type]


METHODS = {"fedavg": FEDAVG}
