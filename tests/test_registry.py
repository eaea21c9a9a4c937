"""Pieces from a user's own file: equal to the package's where they do the same, else refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from marked import slow

from prfl_jax import registry
from prfl_jax.aggregate import Aggregation, AggregationWeights
from prfl_jax.aggregate.choices import buffered, fedbuff
from prfl_jax.config.validate import validate
from prfl_jax.data import partition
from prfl_jax.data.keys import generator
from prfl_jax.density import BalancedDensity, DensityPolicy, Recovery, TieredDensity
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.submodel import Submodel
from prfl_jax.submodel.layers import layer_table
from prfl_jax.submodel.leading import leading_levels
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted

# --- pieces, as a user would write them; named `tests.test_registry:...` ---


def dealt(labels, num_clients, rng):
    return np.array_split(rng.permutation(len(labels)), num_clients)


def images(folder):
    from prfl_jax.data.sources import _mnist_embedded

    return _mnist_embedded("another name", folder)


class Balanced(BalancedDensity):
    pass


class StaysFull(DensityPolicy):
    stays_full = True


class Inherits(StaysFull):
    pass


class NoDensities(DensityPolicy):
    def balance(self, present):
        return present * 0


class FirstTimes(TieredDensity):
    pass


class Recovers(Recovery, BalancedDensity):
    pass


def weighted_mean(held):
    """What the kernel `fedavg` does, as a function of all models."""
    import jax
    import jax.numpy as jnp

    total = held.weights.sum()
    mean = jax.tree.map(lambda m: jnp.tensordot(held.weights, m, axes=1) / jnp.where(total > 0, total, 1), held.models)
    moves = jnp.where(total > 0, held.server_lr, 0.0)
    return jax.tree.map(lambda old, new: (1 - moves) * old + moves * new, held.params, mean)


BUFFERED = Aggregation("maskfedavg", buffered, staleness=True)
STEP = Aggregation("sum", fedbuff, staleness=True, updates=True, arrivals_alone=True)
MEAN = Aggregation(weighted_mean, buffered, staleness=True)
STRANGE = Aggregation("average", buffered, staleness=True)
NO_RULE = Aggregation("sum", None, staleness=True)
NO_CLOSING = Aggregation("fedavg", lambda cfg, window: window.p, staleness=False)
TOO_FEW = Aggregation("fedavg", lambda cfg, window: AggregationWeights(window.p[1:]), staleness=False)
NEGATIVE = Aggregation("fedavg", lambda cfg, window: AggregationWeights(-window.p), staleness=False)
NO_ARRIVALS = Aggregation("sum", lambda cfg, window: AggregationWeights(0 * window.p), staleness=False)
SQUARES = Submodel(scores=lambda weights, squares: squares)
LEADING = Submodel(levels=lambda shapes: leading_levels(layer_table("conv2", (28, 28, 1), 10, 0.1)))
NOTHING = Submodel()
ODD_SCORES = Submodel(scores=lambda weights, squares: tuple(w[0] for w in weights))
BAD_SCORES = Submodel(scores=lambda weights, squares: squares[99])
NO_LEAF = Submodel(levels=lambda shapes: {"elsewhere": np.ones(3, int)})
HIGH = Submodel(levels=lambda shapes: {path: np.full(shape, 101) for path, shape in shapes.items()})
SHARES = Submodel(levels=lambda shapes: {path: np.full(shape, 0.5) for path, shape in shapes.items()})
FLAT = Submodel(levels=lambda shapes: {path: np.ones(1, int) for path in shapes})

# --- the loader ---


def test_a_file_is_run_once_and_again_where_it_changed(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("made = []\n")
    found = registry.find_object(f"{file}:made", "config.x")
    found.append(1)
    assert registry.find_object(f"{file}:made", "config.x") == [1]
    file.write_text("made = ()\n")  # within the second that Python's own cache of compiled files would not notice
    assert registry.find_object(f"{file}:made", "config.x") == ()
    assert not list(tmp_path.glob("__pycache__"))


def test_the_package_s_own_settings_do_not_leak_into_a_file(tmp_path):
    (tmp_path / "mine.py").write_text("def f(x: int): pass\nkind = f.__annotations__['x']\n")
    assert registry.find_object(f"{tmp_path}/mine.py:kind", "config.x") is int


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1 / 0\n", "line 1: ZeroDivisionError: division by zero"),
        ("\ndef broken(:\n", "line 2: SyntaxError"),
        ("import nothing_of_that_name\n", "line 1: ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("raise SystemExit(3)\n", "line 1: SystemExit: 3"),
        ("first, _hidden = 1, 2\n", "there is no piece in it; it has first"),
        ("", "there is no piece in it; it has nothing"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_in_one_line(tmp_path, text, says):
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError) as caught:
        registry.find_object(f"{file}:piece", "config.density.name")
    said = str(caught.value)
    assert said.startswith(f"config.density.name: '{file}:piece' cannot be loaded (") and says in said
    assert said.endswith("allowed: module:object or FILE.py:object") and "\n" not in said


@pytest.mark.parametrize("name", ["a:b", "a.b:c", "x.py:y", "my folder/x.py:y", "../x.py:y"])
def test_names_of_pieces(name):
    assert registry.is_own(name)


@pytest.mark.parametrize("name", ["a", "a:", ":b", "a b:c", "x.py:1", "tfds:mnist", "a/b.npz", "a:b:c"])
def test_other_names(name):
    assert not registry.is_own(name)


# --- the same piece, from outside and from inside ---


def alike(changes, *, but=None, strategy="prfl"):
    """Two runs that differ in where their pieces come from have the same records and models."""
    theirs, built_in = tiny.run(strategy, **changes), tiny.run(strategy, **(but or {}))
    tiny.same(theirs.params, built_in.params)
    for kind in ("window", "eval", "interval", "final"):
        assert theirs.of(kind) == built_in.of(kind)
    return theirs


@pytest.mark.parametrize(
    ("mine", "built_in"),
    [
        ({"data__partition": "tests.test_registry:dealt"}, {}),
        slow({"data__name": "tests.test_registry:images"}, {}),
        slow({"density__name": "tests.test_registry:Balanced"}, {"density__name": "time_balance"}),
        slow({"density__name": "tests.test_registry:Recovers"}, {}),
        ({"aggregation__name": "tests.test_registry:BUFFERED"}, {}),
        slow({"submodel__name": "tests.test_registry:SQUARES"}, {}),
        slow(
            {"submodel__name": "tests.test_registry:SQUARES", "submodel__importance": "client_sq_grad"},
            {"submodel__importance": "client_sq_grad"},
        ),
    ],
)
def test_a_piece_of_ones_own_does_what_the_package_s_does(mine, built_in):
    alike(mine, but=built_in)


@pytest.mark.slow
def test_an_aggregation_of_ones_own_does_what_the_package_s_does():
    alike({"aggregation__name": "tests.test_registry:STEP"}, strategy="fedbuff")


@pytest.mark.slow
def test_a_kernel_of_ones_own_gets_all_models():
    mine = tiny.run("prfl_fedavg", aggregation__name="tests.test_registry:MEAN")
    tiny.close(mine.params, tiny.run("prfl_fedavg").params, 1e-5)
    assert [r["arrivals"] for r in mine.of("window")] == [r["arrivals"] for r in tiny.run("prfl_fedavg").of("window")]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("NO_CLOSING", "gives a ndarray; allowed: a prfl_jax.aggregate.AggregationWeights"),
        ("TOO_FEW", "allowed: 4 finite weights >= 0"),
        ("NEGATIVE", "allowed: 4 finite weights >= 0"),
        ("NO_ARRIVALS", r"arrivals=\(\), keep=1.0; allowed: 4 finite weights of arrivals with kernel='sum'"),
    ],
)
def test_the_weights_of_every_window_are_checked(name, says):
    planner = tiny.simulation("fedavg", aggregation__name=f"tests.test_registry:{name}").new_planner()
    with pytest.raises(
        UserError, match=f"config.aggregation.name='tests.test_registry:{name}': in window 1 close .*{says}"
    ):
        planner.take()


@pytest.mark.slow
def test_levels_of_ones_own_are_charged_like_the_package_s():
    sgd = {"local__name": "sgd"}
    mine = alike({**sgd, "submodel__name": "tests.test_registry:LEADING"}, but=sgd, strategy="heterofl_windowed")
    assert any(percent < 100 for record in mine.of("window") for percent in record["percents"])


def test_the_clock_alone_knows_levels_of_ones_own():
    from prfl_jax.submodel.size_from_config import model_size_from_config

    mine, built_in = (
        model_size_from_config(tiny.config("heterofl", local__name="sgd", model__size_mb=None, submodel__name=name))
        for name in ("tests.test_registry:LEADING", "leading")
    )
    for percent in (1, 6, 13, 50, 100):
        assert mine.value_bytes(percent) == built_in.value_bytes(percent)
        assert mine.density_bytes(percent) == built_in.density_bytes(percent)
        assert mine.flop_share(percent) == pytest.approx(built_in.flop_share(percent), rel=1e-12)
    assert mine.mask_bytes(13) == 0


# --- what is refused ---


def refused(**changes):
    with pytest.raises(UserError) as caught:
        config = tiny.config(**changes)
        validate(config)
        tiny.Simulation(config)
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("key", "name", "says"),
    [
        ("density__name", "tests.test_registry:dealt", "is a function: <function dealt"),
        ("density__name", "tests.test_registry:Submodel", "allowed: a subclass of prfl_jax.density.DensityPolicy"),
        ("data__partition", "tests.test_registry:SQUARES", "is a Submodel: "),
        ("data__name", "tests.test_registry:SQUARES", "allowed: a function that takes the data folder"),
        ("aggregation__name", "tests.test_registry:SQUARES", "allowed: a prfl_jax.aggregate.Aggregation"),
        (
            "aggregation__name",
            "tests.test_registry:STRANGE",
            "has kernel='average'; allowed: fedavg, krum, maskfedavg, median",
        ),
        ("aggregation__name", "tests.test_registry:NO_RULE", "has close=None; allowed: a function"),
        ("submodel__name", "tests.test_registry:Balanced", "is the class <class 'tests.test_registry.Balanced'>"),
        ("submodel__name", "tests.test_registry:NOTHING", "with scores or levels"),
        ("submodel__name", "tests.test_registry:ODD_SCORES", "allowed: one array a leaf, [(784, 12), (12, 10)]"),
        ("submodel__name", "tests.test_registry:BAD_SCORES", "failed (line "),
        (
            "submodel__name",
            "tests.test_registry:NO_LEAF",
            "give ['elsewhere']; allowed: a dict with paths among ['Dense_0/bias'",
        ),
        ("submodel__name", "tests.test_registry:HIGH", "for Dense_0/bias are from 101 to 101; allowed: 1 to 100"),
        ("submodel__name", "tests.test_registry:SHARES", "for Dense_0/bias are float64 (12,); allowed: integers (12,)"),
        ("submodel__name", "tests.test_registry:FLAT", "for Dense_0/bias are int64 (1,); allowed: integers (12,)"),
        ("submodel__name", "no_such_module:X", "cannot be loaded (ModuleNotFoundError"),
    ],
)
def test_an_object_of_another_kind_is_refused_in_one_line(key, name, says):
    said = refused(**{key: name})
    assert said.startswith(f"config.{key.replace('__', '.')}: ") and says in said and name in said


def test_scores_and_levels_together_are_refused():
    with pytest.raises(UserError, match="not both"):
        Submodel(scores=lambda w, s: s, levels=lambda shapes: {})


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("Recovers", {"data__holdout_fraction": 0.0}, "config.data.holdout_fraction"),
        ("Recovers", {"aggregation__name": "fedavg"}, "config.aggregation.name"),
        ("FirstTimes", {"window__first_waits_for_all": False}, "config.window.first_waits_for_all"),
        ("FirstTimes", {"window__cohort": 2, "aggregation__name": "counted"}, "config.density.name"),
        ("Balanced", {"transport__name": "one_copy"}, "config.transport.name"),
        ("Inherits", {"transport__name": "one_copy"}, "config.transport.name"),
    ],
)
def test_a_policy_says_what_it_needs(name, changes, says):
    with pytest.raises(UserError, match=says):
        validate(tiny.config(density__name=f"tests.test_registry:{name}", **changes))


def test_a_policy_that_stays_full_may_have_one_copy():
    validate(tiny.config(density__name="tests.test_registry:StaysFull", transport__name="one_copy"))


def test_a_policy_without_densities_is_told(tmp_path):
    config = tiny.config(density__name="tests.test_registry:NoDensities")
    with pytest.raises(UserError, match=r"NoDensities.balance gave .*; allowed: 4 densities in \(0, 1\]"):
        Experiment(config).run(tmp_path, progress=False)


def parts_of(answer):
    """The parts of a partition plugin that returns `answer`, for ten images and three clients."""
    import sys
    import types

    module = types.ModuleType("own_answers")
    module.deal = lambda labels, num_clients, rng: answer
    sys.modules["own_answers"] = module
    deal = partition.PARTITIONS.find("own_answers:deal").deal
    return deal(partition.Pool(np.zeros(10, np.int32), 2), None, 3, 1, generator(0, "data/partition"))[0]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "returns a NoneType; allowed: a list of clients.number=3 parts"),
        ([[0], [1]], "returns 2 parts"),
        ([[0], [1], []], "gives client 2 no image"),
        ([[0], [1], [2, 10]], "gives client 2 position 10; allowed: 0 to 9"),
        ([[0], [-1], [2]], "gives client 1 position -1"),
        ([[0], [1], [2, 0]], "gives position 0 to client 0 and to client 2; allowed: once"),
        ([[0], [3, 1, 3], [2]], "gives position 3 to client 1 and to client 1"),
        ([[0], [1.0], [2]], "gives client 1 float64 (1,); allowed: whole numbers"),
        ([[0], [True], [2]], "gives client 1 bool (1,)"),
        ([[0], [[1]], [2]], "gives client 1 int64 (1, 1)"),
    ],
)
def test_a_partition_is_checked(answer, says):
    with pytest.raises(UserError) as caught:
        parts_of(answer)
    assert says in str(caught.value) and str(caught.value).startswith("config.data.partition: 'own_answers:deal' ")


def test_positions_may_go_unused_and_lists_will_do():
    parts = parts_of([[0, 5], (1,), np.array([9], np.uint8)])
    assert [part.tolist() for part in parts] == [[0, 5], [1], [9]] and parts[2].dtype == np.int64


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return 3", "returns a int; allowed: a prfl_jax.data.Dataset"),
        ("return Dataset('x', x / 2, y, x, y, 2)", "x_train is float64 and x_test uint8: samples must be of one type"),
        ("return Dataset('x', x, y + 1, x, y, 2)", "y_train holds 2, allowed are 0..1"),
        ("return Dataset('x', x, y[1:], x, y, 2)", "y_train is int64 [39], expected whole numbers [40]"),
        ("open('nowhere.bin')", "failed (line 9: FileNotFoundError"),
    ],
)
def test_a_data_set_is_checked(tmp_path, body, says):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\nfrom prfl_jax.data import Dataset\n\n\ndef images(folder):\n"
        f"    x = np.zeros((40, 8, 8), np.uint8)\n    y = np.arange(40) % 2\n    {body}\n"
    )
    said = refused(data__name=f"{tmp_path}/mine.py:images")
    assert said.startswith("config.data.name: ") and says in said


# --- resume ---


def test_a_run_is_not_resumed_after_a_plugin_file_was_edited(tmp_path):
    file = tmp_path / "mine.py"
    text = "from prfl_jax.density import BalancedDensity\n\n\nclass Mine(BalancedDensity):\n    pass\n"
    file.write_text(text)
    config = tiny.config(density__name=f"{file}:Mine")
    with pytest.raises(Interrupted):
        Experiment(config).run(tmp_path / "run", guard=tiny.StopAt(9), progress=False)
    file.write_text(text + "# another\n")
    with pytest.raises(UserError, match="a file that the config names, are not those this --workdir began"):
        Experiment(config).run(tmp_path / "run", progress=False)
    file.write_text(text)
    finished = Experiment(config).run(tmp_path / "run", progress=False)
    assert finished.report["windows"] == tiny.SETTINGS["rounds"]


def test_all_files_count_and_a_partition_that_forgets_the_seed(monkeypatch):
    config = tiny.config(data__partition="tests.test_registry:dealt")
    assert len(registry.sources(config)) == 2  # the partition's, and the tiny model's
    one, same = tiny.Simulation(config), tiny.Simulation(config)
    assert one.data_crc32 == same.data_crc32
    monkeypatch.setattr(
        "tests.test_registry.dealt",
        lambda labels, m, rng: np.array_split(np.random.default_rng().permutation(len(labels)), m),
    )
    assert tiny.Simulation(config).data_crc32 != one.data_crc32
