"""FedMP's workers: Jetson TX2 in four computing modes (Table II) at three locations (Fig. 3), as keys of `clients`.

The paper gives the clocks of the modes and no speeds. What is chosen here, before any two methods were compared:

- Computing falls with the clock of the GPU, 1 : .86 : .86 : .65 (that of the CPU cores, 1 : .67 : .70 : .40, by
  option). The text names the modes of cluster A alone, 0 and 1; B has 1 and 2, C has 2 and 3.
- Links: 7.5 MB/s up and 15 MB/s down in cluster A, .3 of that in B and .2 in C.
- Mode 0 trains at 1.2e11 FLOP/s (a fifth of the peak of that GPU, 256 cores at 1.3 GHz).
- The server's link is not shared, since the workers' wireless links are what is slow.

So AlexNet's dense round (93 MB each way, a pass over 5,000 samples) takes the slowest worker 37 s in the scenario Low,
80 s in Medium and 117 s in High, without the clock's random draws; with them a round that waits for all ten takes 45,
101 and 139 s. Syn-FL's 24,017 s to 80 % in the paper's Medium are then 240 to 300 rounds, of the 500 that its Fig. 7
shows. That the rounds of Medium and High are 2.2 and 3.2 times as long as those of Low follows from the speed-ups over
Syn-FL for the CNN (1.3, 2.8, 4.1), if FedMP's own time hardly depends on the scenario, as the paper says.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from prfl_jax.system.errors import UserError

FLOP_S = 1.2e11  # of mode 0
UP_MB_S, DOWN_MB_S = 7.5, 15.0  # in cluster A

# Relative speed of modes 0 to 3 (Table II).
GPU_SPEEDS = (1.0, 0.86, 0.86, 0.65)
CPU_SPEEDS = (1.0, 0.67, 0.70, 0.40)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Devices in one place: `modes`, which its workers have in turn, and `link`, its MB/s relative to cluster A."""

    modes: tuple[int, int]
    link: float


CLUSTERS = {"A": Cluster((0, 1), 1.0), "B": Cluster((1, 2), 0.3), "C": Cluster((2, 3), 0.2)}

# Section V-E: how many of ten workers are in each cluster.
SCENARIOS = {"low": {"A": 10}, "medium": {"A": 5, "B": 5}, "high": {"A": 3, "B": 3, "C": 4}}


def in_clusters(scenario: str, number: int = 10) -> list[str]:
    """The cluster of each worker, `[number]`, in the shares of a scenario.

    Examples:
      >>> "".join(in_clusters("high")), "".join(in_clusters("medium", 14))
      ('AAABBBCCCC', 'AAAAAAABBBBBBB')

    Raises:
      UserError: no such scenario, or not one worker.
    """
    if scenario not in SCENARIOS:
        raise UserError(f"scenario={scenario!r}: allowed is one of {', '.join(SCENARIOS)}")
    if number < 1:
        raise UserError(f"number={number}: allowed is a whole number of at least 1")
    of_ten = [cluster for cluster, count in SCENARIOS[scenario].items() for _ in range(count)]
    return [of_ten[worker * 10 // number] for worker in range(number)]


def set_workers(
    config: Any,
    scenario: str,
    number: int = 10,
    *,
    speeds: tuple[float, ...] = GPU_SPEEDS,
    pass_share: float = 1.0,
) -> None:
    """Sets the workers of a scenario: the group `clients`, and that the server's link is not shared.

    Args:
      config: a whole config; changed in place.
      scenario: low | medium | high.
      number: of workers; the paper has 10 to 30.
      speeds: relative FLOP/s of modes 0 to 3.
      pass_share: the share of a pass over a worker's samples that a round of this config trains. FLOP/s are multiplied
        by it, so that a round that does a part of the work takes the time of a whole pass.

    Raises:
      UserError: as `in_clusters`.
    """
    clusters = in_clusters(scenario, number)
    modes = [CLUSTERS[name].modes[clusters[:worker].count(name) % 2] for worker, name in enumerate(clusters)]
    links = [CLUSTERS[name].link for name in clusters]
    config.clients.number = number
    config.clients.flop_s = tuple(FLOP_S * speeds[mode] * pass_share for mode in modes)
    config.clients.up_mb_s = tuple(UP_MB_S * link for link in links)
    config.clients.down_mb_s = tuple(DOWN_MB_S * link for link in links)
    config.server.contention = False
