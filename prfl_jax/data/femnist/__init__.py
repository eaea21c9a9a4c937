"""FEMNIST by writer: a tensorflow-datasets builder over LEAF's JSON folder."""

from prfl_jax.data.femnist.builder import Femnist

__all__ = ["Femnist"]
