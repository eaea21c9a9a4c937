"""Networks with some of their channels really cut out, by NumPy's indexing: an oracle for sub-models of channels."""

import jax
import numpy as np

from prfl_jax.models.build import flat_paths


def kept_indices(channels, keep, length):
    """The indices of one axis that are left."""
    if channels is None:
        return np.arange(length)
    return np.array([k for k in range(length) if channels[k] < 0 or keep[channels[k]]])


def cut(groups, keep, params):
    """`params` without the entries of the channels that are not kept, as float32, in smaller shapes."""
    small = []
    for path, leaf in flat_paths(params).items():
        rows = [kept_indices(own, keep, n) for own, n in zip(groups.axes[path], leaf.shape, strict=True)]
        small.append(np.asarray(leaf)[np.ix_(*rows)])
    return jax.tree.unflatten(jax.tree.structure(params), small)


def some_channels(groups, seed, share=None):
    """Draws which channels to keep: `share` of each group, else at least one and not all of it."""
    rng, keep = np.random.default_rng(seed), np.zeros(groups.size, bool)
    for group in groups.groups:
        count = rng.integers(1, group.size) if share is None else round(share * group.size)
        keep[group.first + rng.permutation(group.size)[:count]] = True
    return keep
