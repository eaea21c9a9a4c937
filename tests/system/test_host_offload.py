"""Models that lie in the host's memory: the same run, moved a model at a time."""

from __future__ import annotations

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from prfl_jax.config.validate import validate
from prfl_jax.report import comparable
from prfl_jax.runtime.batched_runs import run_batched
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.system import host_offload
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted

ALL = {"engine__clients": "vmap"}
GROUPS = {"engine__clients": "vmap", "engine__group": 3}  # of four clients: the second group is two thirds padding


def on_host():
    return host_offload.host_memory(jax.devices()[0])


@pytest.mark.parametrize("slots", [2, [0, 3], [3, 5, 1, 4]])  # 4 and 5 are no slots
def test_reading_and_writing_slots_is_as_on_the_device(slots):
    stack = np.arange(12, dtype=np.float32).reshape(4, 3)
    new = -np.ones((*np.shape(slots), 3), np.float32)
    there = jax.device_put(stack, on_host())
    written = jax.jit(host_offload.put, out_shardings=on_host())(there, jnp.asarray(slots), new)
    assert written.sharding.memory_kind == "pinned_host"
    want = stack.copy()
    for slot in np.atleast_1d(slots):
        if slot < 4:
            want[slot] = -1
    np.testing.assert_array_equal(written, want)
    np.testing.assert_array_equal(jax.jit(host_offload.put)(jnp.asarray(stack), jnp.asarray(slots), new), want)
    inside = np.minimum(slots, 3)
    read = jax.jit(host_offload.fetch)(there, jnp.asarray(inside))
    assert read.sharding.memory_kind == "device"
    np.testing.assert_array_equal(read, stack[inside])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("prfl", {}),
        ("prfl", GROUPS),
        ("prfl", ALL),
        ("prfl_fedavg", {}),
        ("fedbuff", {"engine__train": "pending"}),
        ("fedbuff", {"engine__train": "pending", **GROUPS}),
        ("heterofl_windowed", {"engine__store": "bfloat16"}),
    ],
)
def test_a_run_is_the_same(method, changes):
    asked, ask = [], host_offload.on_host
    with mock.patch.object(host_offload, "on_host", lambda stack: asked.append(ask(stack)) or asked[-1]):
        host = tiny.run(method, engine__models="host", **changes)
    assert any(asked)
    device = tiny.run(method, engine__models="device", **changes)
    tiny.close(host.params, device.params, 1e-6)
    for one, other in zip(host.of("window"), device.of("window"), strict=True):
        np.testing.assert_allclose(one.pop("loss"), other.pop("loss"), rtol=1e-5)
        assert one == other
    assert host.report["config_hash"] == device.report["config_hash"]


def test_where_the_models_lie():
    simulation = tiny.simulation("prfl", engine__models="host", engine__train="pending")
    state = simulation.init_state(simulation.init_key)
    places = {"sent": {"pinned_host"}, "buffer": {"pinned_host"}, "trained": {"pinned_host", "device"}}  # and losses
    for again in (state, simulation.to_devices(simulation.to_host(state))):
        for name, part in again._asdict().items():
            kinds = {leaf.sharding.memory_kind for leaf in jax.tree.leaves(part)}
            assert kinds == places.get(name, {"device"} if jax.tree.leaves(part) else set()), name
            # what a traced function sees, which decides whether anything is moved
            spaces = {jax.typeof(leaf).memory_space.name for leaf in jax.tree.leaves(part)}
            assert spaces == {{"pinned_host": "Host", "device": "Device"}[kind] for kind in kinds}, name


@pytest.mark.slow
def test_a_run_goes_on_exactly_and_in_the_other_place(tmp_path):
    whole = tiny.run("prfl", engine__models="host")
    config = tiny.config("prfl", engine__models="host")
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        for name in ("host", "device"):
            for checks in (4, 7):
                with pytest.raises(Interrupted):
                    Experiment(config).run(tmp_path / name, guard=tiny.StopAt(checks), progress=False)
            other = tiny.config("prfl", engine__models=name)
            again = Experiment(other).run(tmp_path / name, progress=False)
            mine, theirs = comparable(again.report), comparable(whole.report)
            assert mine.pop("config")["engine"]["models"] == name
            assert mine == {key: value for key, value in theirs.items() if key != "config"}
            tiny.same(again.params, whole.params)


def test_one_device_and_one_experiment_only(tmp_path):
    with pytest.raises(UserError, match="engine.devices=2"):
        validate(tiny.config("prfl", engine__models="host", engine__devices=2))
    with pytest.raises(UserError, match="engine.models='host'"):
        run_batched([tiny.config("prfl", engine__models="host", seed=s) for s in range(2)], [tmp_path / "a", tmp_path])
