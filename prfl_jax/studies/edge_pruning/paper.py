"""The numbers printed in the edge pruning paper (Zhou et al. 2024, section 4), for the columns beside ours.

Accuracies, retentions and sparsities are shares. Of methods there are names of `strategies` rows, whether or not there
is such a row.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Initial:
    """A row of Table 2: initial pruning, and what is retained in the end.

    Attributes:
      rounds: of initial pruning.
      retention: after it.
      time_s: of it.
      final: retention in the end.
    """

    rounds: int
    retention: float
    time_s: float
    final: float


@dataclasses.dataclass(frozen=True)
class Performance:
    """A row of Table 3.

    Attributes:
      accuracy: in the end.
      times_s: to 70 and to 80 %.
      converged_s: "convergence time", which the paper does not define.
      all_s: of 10,000 rounds.
      retention: of the model.
      size_kib: of it, which the paper calls KB.
      client_gb: memory of a client, None where it is not printed.
    """

    accuracy: float
    times_s: tuple[float, float]
    converged_s: float
    all_s: float
    retention: float
    size_kib: float
    client_gb: float | None


TABLE2 = {
    "prunefl": Initial(16, 0.086, 306.2, 0.134),  # Table 3 has 8.6 % for the end
    "threshold": Initial(1, 0.717, 39.7, 0.191),
    "layerwise": Initial(2, 0.157, 72.3, 0.037),
}
TABLE3 = {
    "layerwise": Performance(0.830, (549.97, 2210.78), 5161.72, 13816.69, 0.037, 1760, 3.083),
    "prunefl": Performance(0.825, (747.79, 3396.00), 9277.19, 23766.16, 0.086, 3024, 3.121),
    "snip": Performance(0.840, (1419.31, 4468.36), 9654.30, 15099.10, 0.037, 1760, None),
    "iterative": Performance(0.843, (617.71, 2036.17), 9171.22, 15332.01, 0.037, 1760, None),
    "conventional": Performance(0.828, (909.75, 3521.44), 4586.73, 12959.22, 0.086, 3024, 2.936),
}
ROUNDS = 10_000
THRESHOLDS = (0.70, 0.80)
CURVES = ("layerwise", "threshold", "prunefl", "conventional")  # of Figs. 8 to 10
STABILITY = ("layerwise", "snip", "iterative")  # of Fig. 11

# Fig. 5: retention of masks that two writers (a, b) and two groups of writers (c, d) come to.
FIG5 = {"a": 0.047, "b": 0.122, "c": 0.084, "d": 0.086}

# The set-up of Complement Sparsification (Figs. 12 and 13): 10 of 193 users a round.
SAMPLED = 10
STOP_SPARSITY = 0.55  # initial pruning stops at it
CHECKPOINT = 500  # rounds
SAMPLED_ACCURACY = {"layerwise": 0.746, "fedavg": 0.735}  # in the first 500 rounds, Conv2
SAMPLED_SPARSITY = (0.846, 0.90)  # after 500 rounds, and in the end ("nearly")
CS_ACCURACY = {"best, 500 rounds": 0.743, "sparsity above 70 %": 0.65, "sparsity 80 %": 0.60}  # about; below
CS_VANILLA = 0.769  # the same network without pruning
