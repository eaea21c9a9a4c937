"""Images, how clients share them, and how batches are drawn on the device.

`load` reads a data set by name, `split` shares its training images over the
clients. Both are NumPy only: jax is needed by `prfl_jax.data.device` alone, and
tensorflow-datasets is imported when a data set of its is asked for.
"""

from prfl_jax.data.checks import CHECKS
from prfl_jax.data.partition import Split, split
from prfl_jax.data.sources import Dataset, data_dir, load

__all__ = ["CHECKS", "Dataset", "Split", "data_dir", "load", "split"]
