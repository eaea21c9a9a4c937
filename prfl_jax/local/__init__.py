"""What a client does with the model it was sent."""

from prfl_jax.local.sgd import LocalResult, LocalWork, make_local_round, make_long_round

__all__ = ["LocalResult", "LocalWork", "make_local_round", "make_long_round"]
