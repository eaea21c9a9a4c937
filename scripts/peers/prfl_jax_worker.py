"""Runs FedAvg in prfl_jax: the device calls that scripts/train.py makes for `fedavg`, one window at a time."""

from __future__ import annotations

import itertools
import sys

from common import Work, channel, serve

from prfl_jax.startup import before_jax
from prfl_jax.system import huge_pages

huge_pages.start_again()  # as every script does
before_jax()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import prfl_jax  # noqa: E402
from prfl_jax import strategies  # noqa: E402
from prfl_jax.aggregate import AggregationWeights  # noqa: E402
from prfl_jax.config.defaults import default_config  # noqa: E402
from prfl_jax.data.device import DeviceData, on_device  # noqa: E402
from prfl_jax.engine.client import split_keys  # noqa: E402
from prfl_jax.engine.engine import STATE_SPEC  # noqa: E402
from prfl_jax.engine.evaluate import Evaluator, make_eval_set  # noqa: E402
from prfl_jax.engine.method import make_engine, place, resolve  # noqa: E402
from prfl_jax.engine.placement import ALL  # noqa: E402
from prfl_jax.engine.plan import LocalRound, make_row, stack_rows  # noqa: E402


def main() -> None:
    answers, work = channel(), Work(sys.argv[1])
    config = strategies.use(default_config(), "fedavg")
    config.model.name, config.model.classes = work.net["model"], work.net["classes"]
    config.model.loss, config.data.normalize = "softmax", "unit"
    config.clients.number = work.cohort  # slots: every round draws the users in them
    config.local.steps, config.local.batch_size, config.local.lr = work.steps, work.batch_size, work.lr
    method, placement = resolve(config, tuple(work.net["input"]), work.net["classes"]), place(config)
    engine = make_engine(config, method, placement)
    init, keys = split_keys(0)
    state = placement.jit_global(engine.init_state, STATE_SPEC)(init)
    params: dict[str, dict[str, np.ndarray]] = {}
    for path, leaf in work.params.items():
        layer, name = path.split("/")
        params.setdefault(layer, {})[name] = leaf
    state = state._replace(params=placement.put(params, ALL))
    x, y = on_device(work.x, np.asarray(work.y, np.int32))
    data = DeviceData(
        x=x,
        y=y,
        index=jnp.asarray(work.index, jnp.int32),
        size=jnp.full(work.users, work.index.shape[1], jnp.int32),
    )
    data = placement.put(data, ALL)
    evaluator = Evaluator(method.model, method.loss, "unit", work.net["classes"], placement, method.matmul)
    test = make_eval_set(work.x_test, work.y_test, config.eval.batch_size, placement)
    full, mean = [(slot, 100) for slot in range(work.cohort)], 1 / work.cohort
    rounds, times, chunk = itertools.count(), np.zeros(work.users, int), None

    def work_round() -> float:
        nonlocal state, chunk
        users = work.draw(next(rounds))
        arrivals = [LocalRound(slot, user, times[user], work.lr, mean) for slot, user in enumerate(users)]
        times[users] += 1
        closing = AggregationWeights(np.zeros(work.cohort), arrivals=(mean,) * work.cohort, keep=0.0)
        row = make_row(work.cohort, full, arrivals, closing)
        plan = placement.split_plan(stack_rows([row], 1))
        if chunk is None:
            chunk = engine.run_chunk.lower(state, data, plan, np.int32(1), keys).compile()
        state, seen = chunk(state, data, plan, np.int32(1), keys)
        return float(np.mean(np.asarray(seen.losses)))

    def evaluate() -> float:
        return evaluator(state.params, test).accuracy

    about = {"prfl_jax": getattr(prfl_jax, "__version__", "this clone"), "jax": jax.__version__}
    serve(answers, {**about, "devices": placement.count}, work_round, evaluate)


if __name__ == "__main__":
    main()
