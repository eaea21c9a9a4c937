"""Writes small files in the formats that data sets are published in, and the config that reads what is made of them."""

import numpy as np

from prfl_jax.config.defaults import default_config


def config(name, folder):
    data = default_config().data
    data.name, data.dir = name, str(folder)
    return data


def idx(values: np.ndarray) -> bytes:
    kind = {1: 0x08, 4: 0x0C}[values.dtype.itemsize]
    head = bytes([0, 0, kind, values.ndim]) + np.array(values.shape, ">i4").tobytes()
    return head + values.astype(values.dtype.newbyteorder(">")).tobytes()
