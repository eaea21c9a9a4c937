"""Local works whose client state counts rounds, so that a run's losses tell what each round had read."""

import jax
import jax.numpy as jnp

from prfl_jax.local import ClientState, LocalResult, LocalWork


def counted_round(task, given):
    """The model as it was sent; the loss is how many of the client's rounds have arrived before this one."""
    return LocalResult(given.params, given.kept.astype(jnp.float32), (), given.kept + 1)


def reading_round(task, given):
    """Likewise; the loss is what the server sent beside the model."""
    return LocalResult(given.params, given.beside, (), given.kept + 1)


def often_nan_round(task, given):
    """Likewise counted; every second update of a client is NaN, by what its key draws."""
    bad = jax.random.uniform(given.key) < 0.5
    params = jax.tree.map(lambda w: jnp.where(bad, jnp.nan, w), given.params)
    return LocalResult(params, given.kept.astype(jnp.float32), (), given.kept + 1)


# loss: rounds of this client that have arrived
COUNTED = LocalWork(counted_round, client_state=ClientState(init=lambda task, params: jnp.int32(0)))
# loss: arrivals of all clients in the windows before the dispatch, over the number of clients
READS = LocalWork(
    reading_round,
    client_state=ClientState(
        init=lambda task, params: jnp.int32(0),
        server=lambda params: jnp.float32(0),
        change=lambda before, after: (after - before).astype(jnp.float32),
    ),
)
OFTEN_NAN = LocalWork(often_nan_round, client_state=COUNTED.client_state)
KEEPING = LocalWork(counted_round, client_state=COUNTED.client_state, takes_optimizer=True)
