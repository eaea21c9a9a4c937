"""Flax modules over a matmul convolution, and the one interface the engine trains through."""

from prfl_jax.models.build import Model, build_model, load_model, save_model
from prfl_jax.models.losses import make_loss
from prfl_jax.models.nets import VGG11, Conv2

__all__ = ["VGG11", "Conv2", "Model", "build_model", "load_model", "make_loss", "save_model"]
