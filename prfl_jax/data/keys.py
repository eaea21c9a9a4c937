"""NumPy random generators, one for each purpose, derived from the experiment's seed."""

from __future__ import annotations

import numpy as np


def generator(seed: int, purpose: str) -> np.random.Generator:
    """A generator that depends on `(seed, purpose)` and on nothing drawn elsewhere.

    Methods that are compared therefore share what is drawn here, whatever else
    they draw.
    """
    # SeedSequence takes words that are not negative; the sign is a word of its own.
    return np.random.default_rng([abs(seed), int(seed < 0), *purpose.encode("ascii")])
