"""Networks and costs in whole MB, for cases that are worked out by hand."""

import numpy as np

from prfl_jax.clock import Costs, Network, WindowRule

MB = 10**6


ALL = WindowRule("all")


def network(up, down=None, server_up=1024.0, server_down=1024.0, contention=True):
    """Steady speeds, MB/s."""
    down = up if down is None else down
    return Network(tuple(up), tuple(down), server_up, server_down, 0.0, 0.0, contention)


def costs(down, up=None, mask=None, compute=None, group=None):
    """Sizes in MB; nothing else by default."""
    m = len(down)
    none = [0.0] * m
    to_bytes = [np.round(np.array(values) * MB) for values in (down, none if mask is None else mask)]
    return Costs(
        *to_bytes,
        np.round(np.array(none if up is None else up) * MB),
        np.array(none if compute is None else compute),
        np.arange(m) if group is None else np.array(group),
    )


def arrivals(window):
    return [(a.client, a.arrived_s) for a in window.arrivals]
