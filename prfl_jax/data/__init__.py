"""Data: data sets, partitions of the training samples over clients, batches drawn on the device.

`load` reads a data set by name, `split` shares its training samples over the clients. What is exported is NumPy only:
`prfl_jax.data.device` alone needs JAX, and tensorflow-datasets is imported when one of its data sets is asked for.
"""

from prfl_jax.data.checks import CHECKS
from prfl_jax.data.client_split import SIGNALS, Split, split
from prfl_jax.data.dataset import Dataset, data_dir
from prfl_jax.data.partition import PARTITIONS
from prfl_jax.data.pixels import AUGMENTATIONS, NORMALIZATIONS
from prfl_jax.data.sources import DATA_SETS, load
from prfl_jax.data.step_targets import TARGETS
from prfl_jax.data.text.vocabulary import UNITS

__all__ = [
    "AUGMENTATIONS",
    "CHECKS",
    "DATA_SETS",
    "NORMALIZATIONS",
    "PARTITIONS",
    "SIGNALS",
    "TARGETS",
    "UNITS",
    "Dataset",
    "Split",
    "data_dir",
    "load",
    "split",
]
