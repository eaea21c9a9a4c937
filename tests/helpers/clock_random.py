"""Random networks and costs for the clock, and the window rules it is tried with."""

import numpy as np
from hypothesis import strategies as st

from prfl_jax.clock import Costs, Network, WindowRule

# Up to so many streams are shared among anew in every window; with more, rates go on from the window before.
FEW = st.sampled_from((64, 0))


RULES = (
    WindowRule("fixed", dt_s=1.5, first_waits_for_all=True),
    WindowRule("fixed", dt_s=0.8, first_waits_for_all=False),
    WindowRule("fixed", dt_s=1.5, first_waits_for_all=False, dispatch="on_arrival"),
    WindowRule("fixed", dt_s=0.9, first_waits_for_all=True, dispatch="on_arrival"),
    WindowRule("all"),
    WindowRule("k_arrivals", k=2),
    WindowRule("k_arrivals", k=3, dispatch="on_arrival"),
    WindowRule("each_arrival"),
    WindowRule("each_arrival", dispatch="on_arrival"),
    WindowRule("release", release_min_s=0.3),
    WindowRule("release", release_min_s=0.3, dispatch="on_arrival"),
    WindowRule("all", cohort=2),
    WindowRule("fixed", dt_s=1.5, first_waits_for_all=False, cohort=3),
    WindowRule("k_arrivals", k=4, dispatch="on_arrival", cohort=2),
    WindowRule("fixed", dt_s=1.5, first_waits_for_all=False, dispatch="on_arrival", cohort=3),
)


def random_network(rng, clients, contention):
    return Network(
        client_up=tuple(rng.uniform(0.3, 5.0, clients)),
        client_down=tuple(rng.uniform(1.0, 8.0, clients)),
        server_up=float(rng.uniform(2.0, 12.0)),
        server_down=float(rng.uniform(1.0, 8.0)),
        client_sigma=0.3,
        server_sigma=0.2,
        contention=contention,
    )


def random_costs(rng, clients):
    """Sub-models of a few sizes; some dispatches without bytes, without a mask, without computing."""
    sizes = np.sort(rng.integers(1, 3_000_000, 4))
    group = rng.integers(0, 4, clients)
    zero = rng.random((4, clients)) < 0.15
    down = np.where(zero[0], 0, sizes[group])
    return Costs(
        down_bytes=down,
        mask_bytes=np.where(zero[1], 0, rng.integers(0, 400_000, clients)),
        up_bytes=np.where(zero[2], 0, rng.integers(1, 3_000_000, clients)),
        compute_s=np.where(zero[3], 0.0, rng.uniform(0.05, 1.0, clients)),
        group=np.where(down == 0, -1, group),
    )
