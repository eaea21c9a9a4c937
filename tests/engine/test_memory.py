"""Memory is counted before it is taken, and a run that would not fit says what to change."""

from __future__ import annotations

from unittest import mock

import jax
import numpy as np
import pytest
import tiny

from prfl_jax.engine import memory
from prfl_jax.engine.chunk_program import Taken
from prfl_jax.engine.placement import Placement
from prfl_jax.runtime.dry_run import print_needs
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.system import accelerator
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted


def test_what_is_counted_is_what_lies_there(monkeypatch):
    monkeypatch.setattr(memory, "host_available", lambda: 10**12)
    sim = tiny.simulation("prfl")
    state = sim.init_state(sim.init_key)
    real = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert sum(memory.state_bytes(state).values()) == real
    images = sum(leaf.nbytes for leaf in jax.tree.leaves((sim.device_data().x, sim.eval_sets()[0].x)))
    assert images == 28 * 28 * (360 + 200)
    text, taken = sim.memory(), Taken.by(sim.executable())
    assert taken.arguments == pytest.approx(real + images * 360 / 560, rel=0.1)  # and plans
    whole = 3.2 * real + images + taken.beside
    assert text.startswith(f"memory: {whole / 1e6:.4g} MB on this machine of 1,000 GB")
    assert "models in flight" in text and "buffer" in text and "samples 0.439 MB" in text
    assert f"a checkpoint's copies {2.2 * real / 1e6:.4g} MB" in text


def test_what_does_not_fit_is_refused_before_anything_is_written(monkeypatch, capsys):
    monkeypatch.setattr(memory, "host_available", lambda: 10**6)
    with pytest.raises(UserError, match=r"config.clients.number=4: this machine would need .* has 1 MB; take fewer"):
        Experiment(tiny.config("prfl"))
    with pytest.raises(UserError, match="this machine would need"):
        print_needs(tiny.config("prfl"))
    assert "does not fit" in capsys.readouterr().out
    monkeypatch.setattr(memory, "host_available", lambda: None)  # where nobody knows, nothing is refused
    assert " of " not in Experiment(tiny.config("prfl")).memory.split("(")[0]


class Device:
    def __init__(self, limit):
        self._limit = limit

    def memory_stats(self):
        return None if self._limit is None else {"bytes_limit": self._limit, "bytes_in_use": 1000}


def test_an_accelerators_own_memory_counts(monkeypatch):
    monkeypatch.setattr(memory, "host_available", lambda: 10**12)
    sim = tiny.simulation("prfl", clients__number=4)
    shapes = jax.eval_shape(sim.engine.init_state, sim.init_key)
    parts = memory.state_bytes(shapes)
    monkeypatch.setattr(accelerator, "backend", lambda: "gpu")
    stacks = parts["models in flight"] + parts["buffer"]
    each = sum(parts.values()) - stacks // 2 + 50  # two devices share the stacks, each has the images
    fits = Placement(4, (Device(each + 1000), Device(10**9)))
    assert memory.check_memory(shapes, 50, fits).startswith("memory: ")
    short = Placement(4, (Device(each + 999), Device(10**9)))
    with pytest.raises(UserError, match="each device would need"):
        memory.check_memory(shapes, 50, short)
    memory.check_memory(shapes, 50, Placement(4, (Device(None), Device(None))))
    monkeypatch.setattr(memory, "host_available", lambda: 1000)
    with pytest.raises(UserError, match="the host, for checkpoints"):
        memory.check_memory(shapes, 50, fits)


def test_models_with_the_host_are_counted_there(monkeypatch):
    sim = tiny.simulation("prfl", engine__models="host")
    shapes = jax.eval_shape(sim.engine.init_state, sim.init_key)
    parts = memory.state_bytes(shapes)
    monkeypatch.setattr(accelerator, "backend", lambda: "gpu")
    stacks, whole = parts["models in flight"] + parts["buffer"], sum(parts.values())
    saving = round(2.2 * whole)
    model = parts["server model"]
    here = whole - stacks + 50 + 2 * 3 * model
    device = Placement(4, (Device(here + 1000),))
    monkeypatch.setattr(memory, "host_available", lambda: stacks + saving)
    assert memory.check_memory(shapes, 50, device, training=2 * 3 * model, on_host=True).startswith("memory: ")
    with pytest.raises(UserError, match="each device would need"):
        memory.check_memory(shapes, 50, device, training=3 * 3 * model, on_host=True)  # each client's whole model too
    with pytest.raises(UserError, match="engine.models=host"):
        memory.check_memory(shapes, 50, device)
    monkeypatch.setattr(memory, "host_available", lambda: stacks + saving - 1)
    with pytest.raises(UserError, match="the host would need"):
        memory.check_memory(shapes, 50, device, training=2 * 3 * model, on_host=True)
    monkeypatch.setattr(memory, "host_available", lambda: 10**12)
    with pytest.raises(UserError, match="each device would need"):
        memory.check_memory(shapes, 50, Placement(4, (Device(here + 999),)), training=2 * 3 * model, on_host=True)


def test_several_experiments_are_counted_twice_and_saved_once(monkeypatch):
    """A chunk stacks their states; each is copied for its checkpoint, and they take turns in writing."""
    monkeypatch.setattr(memory, "host_available", lambda: 10**12)
    sim = tiny.simulation("prfl")
    shapes = jax.eval_shape(sim.engine.init_state, sim.init_key)
    one = sum(memory.state_bytes(shapes).values())
    text = memory.check_memory(shapes, 50, sim.placement, experiments=3)
    assert text.startswith(f"memory: {(6 * one + 4.2 * one + 150) / 1e6:.4g} MB on")


def test_memory_grows_linearly_with_the_clients():
    def stacks(clients):
        speeds = dict(clients__up_mb_s=(2.0,) * clients, clients__down_mb_s=(8.0,) * clients)
        sim = tiny.simulation("prfl", clients__number=clients, local__batch_size=5, **speeds)
        parts = memory.state_bytes(jax.eval_shape(sim.engine.init_state, sim.init_key))
        return sum(parts.values()), parts["models in flight"]

    (ten, one_stack), (forty, _) = stacks(10), stacks(40)
    own = one_stack / 10
    assert forty - ten == pytest.approx(30 * own * (2 + 2 / 32), rel=0.01)  # two models and two masks of bits a client


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["prfl", "fedbuff"])
def test_stacks_in_bfloat16_take_half_the_memory(strategy):
    whole, half = (tiny.simulation(strategy, engine__store=kind) for kind in ("float32", "bfloat16"))
    counts = [memory.state_bytes(jax.eval_shape(s.engine.init_state, s.init_key)) for s in (whole, half)]
    for name in memory.STACKS:
        if name in counts[0]:
            assert counts[1].pop(name) * 2 == counts[0].pop(name)
    assert counts[0] == counts[1]  # nothing else changes
    kept, rounded = (tiny.run(strategy, engine__store=kind) for kind in ("float32", "bfloat16"))
    assert [w["arrivals"] for w in kept.of("window")] == [w["arrivals"] for w in rounded.of("window")]
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(rounded.params))
    for exact, near in zip(jax.tree.leaves(kept.params), jax.tree.leaves(rounded.params), strict=True):
        apart = np.abs(exact - near).max() / np.abs(exact).max()
        assert 0 < apart < 0.05  # 8 bits of mantissa, over eight windows
    assert rounded.report["config_hash"] != kept.report["config_hash"]


def test_a_run_stored_in_bfloat16_goes_on_to_the_bit(tmp_path):
    config = tiny.config("prfl", engine__store="bfloat16")
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        with pytest.raises(Interrupted):
            Experiment(config).run(tmp_path / "run", guard=tiny.StopAt(7), progress=False)
        resumed = Experiment(config).run(tmp_path / "run", progress=False)
    tiny.same(resumed.params, tiny.run("prfl", engine__store="bfloat16").params)
