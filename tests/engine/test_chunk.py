"""One device call runs a chunk: nothing goes to the host inside it, and its length changes nothing."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from marked import slow
from unlike import on_the_device, unlike

from prfl_jax.engine.plan import MAX_ROWS, empty_row, stack_rows
from prfl_jax.report import comparable
from prfl_jax.runtime.experiment import Experiment


def talks_to_the_host(names):
    return [name for name in names if any(word in name for word in ("callback", "debug", "feed", "print"))]


@pytest.mark.parametrize("axis", ["map", "vmap"])
@pytest.mark.parametrize("strategy", ["prfl", "fedavg"])
def test_a_chunk_has_no_callback_into_the_host(strategy, axis):
    simulation = tiny.simulation(strategy, engine__clients=axis)
    state = jax.eval_shape(simulation.engine.init_state, simulation.init_key)
    plan = stack_rows([empty_row(4)], MAX_ROWS)
    names = tiny.primitives(
        simulation.engine.run_chunk, state, simulation.device_data(), plan, np.int32(1), simulation.keys
    )
    assert "dot_general" in names and not talks_to_the_host(names)


def test_a_callback_would_be_found():
    def loud(x):
        return jax.lax.fori_loop(0, 3, lambda i, y: (jax.debug.print("{}", y), y + 1)[1], x)

    assert talks_to_the_host(tiny.primitives(jax.jit(loud), 1.0))
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    assert talks_to_the_host(tiny.primitives(lambda x: jax.pure_callback(lambda y: y, shape, x), 1.0))


@pytest.fixture(scope="module")
def prfl():
    """(simulation, arguments of a chunk of four windows, all of them on the device, the compiled chunk)."""
    simulation = tiny.simulation("prfl")
    planner = simulation.new_planner()
    rows = [row for _ in range(4) for row in planner.take().rows]
    plan, count = jax.device_put((stack_rows(rows, MAX_ROWS), np.int32(len(rows))))
    state = simulation.init_state(simulation.init_key)
    arguments = (state, simulation.device_data(), plan, count, simulation.keys)
    return simulation, arguments, simulation.engine.run_chunk.lower(*arguments).compile()


def fresh(simulation, arguments):
    return simulation.init_state(simulation.init_key), *arguments[1:]


def test_a_chunk_needs_no_transfer(prfl):
    simulation, arguments, chunk = prfl
    first = fresh(simulation, arguments)
    with jax.transfer_guard("disallow"):
        state, seen = chunk(*first)
        state, seen = chunk(state, *first[1:])
        jax.block_until_ready((state, seen))
    assert np.isfinite(np.asarray(seen.losses)).all()


def test_a_transfer_would_be_found(prfl):
    simulation, arguments, chunk = prfl
    state, data, plan, rows, keys = fresh(simulation, arguments)
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="[Dd]isallowed host-to-device transfer"):
        chunk(state, data, jax.tree.map(np.asarray, plan), rows, keys)


def test_the_state_is_donated_and_nothing_else(prfl):
    simulation, arguments, chunk = prfl
    given = fresh(simulation, arguments)
    state, _ = chunk(*given)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given[0]))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(given[1:]))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_the_same_chunk_gives_the_same_bits(prfl):
    simulation, arguments, chunk = prfl
    tiny.same(*(jax.device_get(chunk(*fresh(simulation, arguments))) for _ in range(2)))


def test_rows_beyond_the_count_are_not_run(prfl):
    simulation, arguments, chunk = prfl
    state, data, plan, _, keys = fresh(simulation, arguments)
    before = jax.device_get(state)
    state, seen = chunk(state, data, plan, jax.device_put(np.int32(0)), keys)
    tiny.same(jax.device_get(state), before)
    assert not np.asarray(seen.losses).any()
    state, seen = chunk(state, data, plan, jax.device_put(np.int32(2)), keys)
    assert np.asarray(seen.losses)[0].any() and not np.asarray(seen.losses)[2:].any()


def test_windows_that_do_nothing_change_nothing(prfl):
    simulation, arguments, chunk = prfl
    _, data, _, _, keys = fresh(simulation, arguments)
    once, _ = chunk(*fresh(simulation, arguments))
    before = jax.device_get(once)
    nothing = jax.device_put(stack_rows([empty_row(4)] * MAX_ROWS, MAX_ROWS))
    after, seen = chunk(once, data, nothing, jax.device_put(np.int32(MAX_ROWS)), keys)
    tiny.same(jax.device_get(after), before)
    assert not np.asarray(seen.losses).any()


class CountingLosses:
    """What a chunk returns besides the state; counts how often the host reads it."""

    def __init__(self, value, counts):
        self.value, self.counts = value, counts

    def is_ready(self):
        return self.value.is_ready()  # asks, and reads nothing

    def __array__(self, *args, **kwargs):
        self.counts["reads"] += 1
        return np.asarray(self.value, *args, **kwargs)


class CountingChunk:
    """Stands in for the jitted chunk function; counts compilations and calls, and guards the device from readers."""

    def __init__(self, jitted):
        self.jitted, self.counts = jitted, {"compiled": 0, "calls": 0, "reads": 0}

    def lower(self, *args):
        lowered = self.jitted.lower(*args)
        return _Lowered(self, lowered)


class _Lowered:
    def __init__(self, chunk, lowered):
        self.chunk, self.lowered = chunk, lowered

    def compile(self):
        counts, compiled = self.chunk.counts, self.lowered.compile()
        counts["compiled"] += 1

        def call(*args):
            counts["calls"] += 1
            with jax.transfer_guard_device_to_host("disallow"):
                state, seen = compiled(*args)
            assert (seen.verdicts, seen.kept) == ((), ())  # which would be two more to read
            return state, seen._replace(losses=CountingLosses(seen.losses, counts))

        call.memory_analysis = compiled.memory_analysis
        return call


def chunks_of(windows, config):
    """How many chunks these windows make: cut at intervals, at points of the evaluation grid, at the length."""
    count, length, grid, end_s = 0, 0, 0, 0.0
    for window in windows:
        new = length in (0, config.engine.chunk_windows) or (window["window"] - 1) % config.density.interval == 0
        while grid * config.eval_every_s < window["end_s"]:  # the model before this window answers it
            grid, new = grid + 1, True
        assert window["start_s"] == end_s
        end_s = window["end_s"]
        count, length = (count + 1, 1) if new else (count, length + 1)
    return count


@pytest.mark.parametrize(
    "changes",
    [
        dict(rounds=12, density__interval=8, eval_every_s=15.0, engine__chunk_windows=3),
        slow(dict(rounds=6, window__dispatch="on_arrival", window__dt_s=6.0, eval_every_s=1000.0, density__interval=4)),
    ],
)
def test_one_call_and_one_read_for_each_chunk(changes):
    simulation = tiny.simulation("prfl", **changes)
    counting = CountingChunk(simulation.engine.run_chunk)
    simulation.engine.run_chunk = counting
    experiment = Experiment(simulation.config, simulation)
    ran = tiny.run_experiment(experiment)
    chunks = chunks_of(ran.of("window"), experiment.config)
    assert 1 < chunks < experiment.config.rounds
    assert counting.counts == {"compiled": 1, "calls": chunks, "reads": chunks}


# Windows of a fixed length, and of one arrival each; the other rows differ in parts that both share.
FAST = ("prfl", "fedasync")
UNLIKE = unlike(lambda row: (on_the_device(row), row.window))
LENGTHS = [*((name, 1) if name in FAST else slow(name, 1) for name in UNLIKE), ("prfl", 0)]


@pytest.mark.parametrize(("strategy", "length"), LENGTHS)
def test_the_length_of_a_chunk_changes_nothing(strategy, length):
    seven, other = tiny.run(strategy), tiny.run(strategy, engine__chunk_windows=length)
    tiny.same(other.params, seven.params)
    for kind in ("window", "eval", "interval", "final", "end"):
        assert other.of(kind) == seven.of(kind)
    one, two = (copy.deepcopy(comparable(ran.report)) for ran in (seven, other))
    assert (one["config"]["engine"].pop("chunk_windows"), two["config"]["engine"].pop("chunk_windows")) == (7, length)
    assert one == two
