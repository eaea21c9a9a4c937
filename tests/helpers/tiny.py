"""Runs small enough for tests: a two-layer module, a config around it, a run of it."""

from __future__ import annotations

import functools
import signal
import tempfile
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import numpy as np
from jax.extend.core import jaxprs_in_params

from prfl_jax import strategies
from prfl_jax.config.canonical import assign
from prfl_jax.config.defaults import default_config
from prfl_jax.config.schema import RULES
from prfl_jax.report import read_metrics
from prfl_jax.runtime.experiment import Experiment, Finished
from prfl_jax.runtime.simulation import Simulation
from prfl_jax.submodel import SUBMODELS
from prfl_jax.system.signals import Interrupted, InterruptGuard


class TwoLayers(nn.Module):
    """A user's own module: images to 12 hidden units to logits."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Dense(12)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.classes)(x)


# Four clients, two of them slow, so that densities differ, updates are stale and windows differ in arrivals.
SETTINGS: dict[str, Any] = {
    "rounds": 8,
    "eval_every_s": 9.0,
    "data.train_limit": 400,
    "data.test_limit": 200,
    "data.partition": "iid",  # the same shapes for every seed: compiled once
    "model.name": "tiny:TwoLayers",
    "model.size_mb": 8.0,
    "clients.number": 4,
    "clients.up_mb_s": (5.0, 4.0, 1.5, 1.0),
    "clients.down_mb_s": (20.0, 16.0, 6.0, 4.0),
    "local.steps": 2,
    "local.batch_size": 10,
    "density.interval": 3,
    "density.patience": 1,
    "density.min_density": 0.1,
    "pruning.times": 2,
    "window.dt_s": 3.0,
    "engine.chunk_windows": 7,
    "eval.thresholds": (0.2, 0.5),
}


def small_model(strategy: str) -> dict[str, Any]:
    """Where sub-models are channels of a known network, a narrow one of those; else nothing."""
    rule = SUBMODELS.find(strategies.METHODS[strategy].submodel)
    return {"model__name": "conv2", "model__width": 0.1} if rule.known_networks else {}


def often(strategy: str) -> dict[str, Any]:
    """Where the server's mask is everybody's, settings with which it changes in a short run; else nothing."""
    rule = SUBMODELS.find(strategies.METHODS[strategy].submodel)
    return {"pruning__interval": 3} if rule.shared_mask else {}


def config(strategy: str = "prfl", **changes: Any) -> Any:
    """A config of that strategy with `SETTINGS` and then `changes`; `a__b=value` sets `a.b`."""
    c = strategies.use(default_config(), strategy)
    changes = {**small_model(strategy), **often(strategy), **changes}
    named = {key.replace("__", "."): value for key, value in changes.items()}
    assert named.keys() <= RULES.keys(), named
    for key, value in {**SETTINGS, **named}.items():
        assign(c, key, value)
    return c


def simulation(strategy: str = "prfl", **changes: Any) -> Simulation:
    return Simulation(config(strategy, **changes))


class Ran:
    """A finished run: the experiment, what it returned, its records."""

    def __init__(self, experiment: Experiment, finished: Finished) -> None:
        self.experiment, self.report, self.params = experiment, finished.report, finished.params
        self.records = list(read_metrics(finished.workdir / "metrics.jsonl"))

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind, without what depends on the host's speed."""
        return [{k: v for k, v in r.items() if k != "host_s"} for r in self.records if r["kind"] == kind]


def run_experiment(experiment: Experiment) -> Ran:
    """Runs an experiment in a folder that is removed afterwards; draws no figure."""
    with tempfile.TemporaryDirectory() as folder, mock.patch("prfl_jax.runtime.experiment.run_figure"):
        ran = Ran(experiment, experiment.run(folder, progress=False))
    experiment.simulation._executables.clear()  # results are kept for the session, programs are not
    return ran


class StopAt(InterruptGuard):
    """A signal that comes at the n-th check."""

    def __init__(self, checks: int) -> None:
        super().__init__()
        self.left = checks

    def check(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Interrupted(signal.SIGTERM)


def stopped_and_resumed(experiment: Experiment, folder: Any, checks: int) -> Finished:
    """Runs an experiment, which has to be stopped at the n-th check, and then to its end from there."""
    try:
        experiment.run(folder, guard=StopAt(checks), progress=False)
    except Interrupted:
        return experiment.run(folder, progress=False)
    raise AssertionError(f"the run ended before check {checks}")


@functools.cache
def run(strategy: str = "prfl", **changes: Any) -> Ran:
    """Runs `config(strategy, **changes)`, once a session for the same arguments; not to be changed by tests."""
    return run_experiment(Experiment(config(strategy, **changes)))


def equations(function: Any, *args: Any) -> list[Any]:
    """All equations in the jaxpr of a call, those of inner jaxprs included."""
    found = []

    def visit(jaxpr: Any) -> None:
        for equation in jaxpr.eqns:
            found.append(equation)
            for inner in jaxprs_in_params(equation.params):
                visit(inner)

    visit(jax.make_jaxpr(function)(*args).jaxpr)
    return found


def primitives(function: Any, *args: Any) -> list[str]:
    """Names of all primitives of `equations`."""
    return [equation.primitive.name for equation in equations(function, *args)]


def close(got: Any, want: Any, relative: float = 1e-5) -> None:
    """Asserts that each leaf differs from its twin by at most `relative` of the leaf's largest entry."""
    got_leaves, want_leaves = jax.tree.leaves(got), jax.tree.leaves(want)
    assert len(got_leaves) == len(want_leaves)
    for g, w in zip(got_leaves, want_leaves, strict=True):
        g, w = np.asarray(g, np.float64), np.asarray(w, np.float64)
        assert g.shape == w.shape
        np.testing.assert_allclose(g, w, rtol=0, atol=relative * max(np.abs(w).max(initial=0), 1e-30))


def same(got: Any, want: Any) -> None:
    """Asserts that two pytrees are equal to the bit."""
    got_leaves, want_leaves = jax.tree.leaves(got), jax.tree.leaves(want)
    assert len(got_leaves) == len(want_leaves)
    for g, w in zip(got_leaves, want_leaves, strict=True):
        g, w = np.asarray(g), np.asarray(w)
        assert g.dtype == w.dtype and g.shape == w.shape
        assert g.tobytes() == w.tobytes()
