"""Runs FedAvg in FedJAX: its own `federated_averaging` with a Haiku model, one jitted step after another."""

from __future__ import annotations

import importlib.metadata
import itertools
import sys

import jax

if not hasattr(jax, "tree_map"):
    setattr(jax, "tree_map", jax.tree_util.tree_map)  # noqa: B010 FedJAX 0.0.17 still uses it

import fedjax
import haiku as hk
import jax.numpy as jnp
import numpy as np
from common import Work, channel, serve
from fedjax.algorithms import fed_avg


def forward(net: dict, batch: dict) -> jax.Array:
    """Returns the logits `[B, classes]` of a batch."""
    x = batch["x"]
    for side, padding, features, pool in net["convs"]:
        x = jax.nn.relu(hk.Conv2D(features, side, padding=padding)(x))
        x = hk.MaxPool(2, 2, "VALID")(x) if pool else x
    x = x.reshape(len(x), -1)
    for units in net["hidden"]:
        x = jax.nn.relu(hk.Linear(units)(x))
    return hk.Linear(net["classes"])(x)


def haiku_params(params: dict[str, np.ndarray], net: dict) -> dict:
    """Returns Flax's params under Haiku's names."""

    def name(kind: str, k: int) -> str:
        return kind + (f"_{k}" if k else "")

    layers = [(f"conv{k}", name("conv2_d", k)) for k in range(len(net["convs"]))]
    layers += [(f"dense{k}", name("linear", k)) for k in range(len(net["hidden"]) + 1)]
    return {there: {"w": params[f"{here}/kernel"], "b": params[f"{here}/bias"]} for here, there in layers}


def main() -> None:
    answers, work = channel(), Work(sys.argv[1])
    x, y = work.x.astype(np.float32) / 255, work.y.astype(np.int32)
    users = {f"{u:05d}": {"x": x[rows], "y": y[rows]} for u, rows in enumerate(work.index)}
    clients = fedjax.InMemoryFederatedData(users)
    model = fedjax.create_model_from_haiku(
        hk.transform(lambda batch: forward(work.net, batch)),
        {"x": x[:1], "y": y[:1]},
        train_loss=lambda batch, logits: fedjax.metrics.unreduced_cross_entropy_loss(batch["y"], logits),
        eval_metrics={"accuracy": fedjax.metrics.Accuracy()},
    )
    algorithm = fed_avg.federated_averaging(
        fedjax.model_grad(model),
        fedjax.optimizers.sgd(work.lr),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(
            batch_size=work.batch_size, num_epochs=None, num_steps=work.steps, drop_remainder=True
        ),
    )
    state = algorithm.init(jax.tree_util.tree_map(jnp.asarray, haiku_params(work.params, work.net)))
    test = fedjax.ClientDataset({"x": work.x_test.astype(np.float32) / 255, "y": work.y_test.astype(np.int32)})
    rounds = itertools.count()

    def work_round() -> None:
        nonlocal state
        number = next(rounds)
        keys = jax.random.split(jax.random.PRNGKey(number), work.cohort)
        taking = [(f"{user:05d}", clients.get_client(f"{user:05d}")) for user in work.draw(number)]
        state, _ = algorithm.apply(state, [(name, data, key) for (name, data), key in zip(taking, keys, strict=True)])
        jax.block_until_ready(state.params)

    def evaluate() -> float:
        batches = test.padded_batch(fedjax.PaddedBatchHParams(batch_size=100))
        return fedjax.evaluate_model(model, state.params, batches)["accuracy"]

    serve(answers, {"fedjax": importlib.metadata.version("fedjax"), "jax": jax.__version__}, work_round, evaluate)


if __name__ == "__main__":
    main()
