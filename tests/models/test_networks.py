"""The built-in networks: sizes, FLOP, what they take, padding, norms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flop_nets import without_loops
from marked import slow_except
from network_cases import CASES, RESIDUAL, SERIES, TOKENS, network, settings
from paths import ROOT

from prfl_jax.config.validate import validate
from prfl_jax.models import build_model, norm_leaves
from prfl_jax.models.build import flat_paths
from prfl_jax.models.inputs import batch_shape
from prfl_jax.models.matmul_conv import plain_convolutions
from prfl_jax.models.network_table import network_table
from prfl_jax.models.variables import STATE
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import FEATURES, SEQUENCES, SampleSpec
from prfl_jax.tasks.sample import pad

rng = np.random.default_rng(0)
WIDE_TOKENS = SampleSpec((7,), SEQUENCES, tokens=90, padded=True)

# In their papers or, where the name of one is given, in the code that most work takes the network from.
PARAMETERS = {
    "cnn": 2 * 32 + 32 * 25 * 33 + 7 * 7 * 32 * 256 + 256 + 256 * 10 + 10,
    "alexnet": 23_272_266,
    "vgg19": 20_565_834 - 5_504,  # without the biases that batch norm makes useless
    "resnet18": 11_173_962,
    "resnet50": 23_520_842,
    "cnn1d": 128 * (8 * 3 + 1) + 256 * (5 * 128 + 1) + 128 * (3 * 256 + 1) + 4 * 129,
    "gru": 3 * 128 * (3 + 128 + 1) + 128 + 4 * 129,
    "text_lstm": 11 * 50 + 4 * 100 * 151 + 4 * 100 * 201 + 30 * 101 + 2 * 31,
}


@pytest.mark.parametrize("name", slow_except(PARAMETERS, "cnn", "alexnet", "cnn1d", "gru", "text_lstm"))
def test_parameters_at_full_size(name):
    assert network(name, 1.0).num_parameters() == PARAMETERS[name]


@pytest.mark.parametrize(
    "name,tokens,parameters",
    [("char_lstm", 90, 820_522), ("word_lstm", 10_000, 19_775_200), ("transformer_lm", 90, 817_370)],
)
def test_parameters_of_language_models(name, tokens, parameters):
    """LEAF's with 90 characters has the 820,522 of Reddi et al. 2021; 19.8 million are Zaremba's medium one."""
    sample = SampleSpec((7,), SEQUENCES, tokens=tokens)
    assert build_model(settings(name), sample, tokens, sequence=True).num_parameters() == parameters


FAST = ("cnn", "cnn1d", "gru", "char_lstm", "transformer_lm")


@pytest.mark.parametrize("name", slow_except([n for n in CASES if n not in ("conv2", "vgg11")], *FAST))
def test_flop_are_xlas_with_loops_written_out(name):
    """Zeros around an image count as pixels, as in `test_flop_count.py`."""
    sample = WIDE_TOKENS if CASES[name][0] is TOKENS else CASES[name][0]
    model = network(name, 1.0, sample)
    shapes, batch = model.shapes(), batch_shape(model.sample, 1)
    with plain_convolutions():
        whole = without_loops(lambda p, x: model.apply(p, x, True, jax.random.key(0)), shapes, batch, borders=True)
        xla = jax.jit(whole).lower(shapes, batch).cost_analysis()["flops"]
    assert 0.95 * xla < model.flop.total() <= xla
    assert not model.flop.unknown


def test_flop_of_recurrent_and_attention_leaves_by_hand():
    char, transformer = network("char_lstm", 16 / 256).flop, network("transformer_lm", 1.0).flop
    steps, tokens = 7, 11
    assert char.by_leaf() == {
        "embedding/embedding": 0,
        "lstm0/bias": 0,
        "lstm0/kernel": steps * 2 * 8 * 64,
        "lstm0/recurrent_kernel": steps * 2 * 16 * 64,
        "lstm1/bias": 0,
        "lstm1/kernel": steps * 2 * 16 * 64,
        "lstm1/recurrent_kernel": steps * 2 * 16 * 64,
        "output/bias": 0,
        "output/kernel": steps * 2 * 16 * tokens,
    }
    leaves = transformer.by_leaf()
    assert leaves["block0/query/kernel"] == leaves["block3/mixed/kernel"] == steps * 2 * 128 * 128
    assert leaves["block0/dense0/kernel"] == steps * 2 * 128 * 512
    assert transformer.rest_at() == 4 * 2 * 2 * steps * steps * 128  # q k^T, and softmax v, of four blocks


# What they take.


@pytest.mark.parametrize("name", slow_except([n for n in CASES if n not in ("conv2", "vgg11")], "gru"))
def test_outputs_and_a_gradient_of_each_network(name):
    model = network(name)
    _, classes, steps, _ = CASES[name]
    x = batch_of(model.sample, 3)
    y = rng.integers(0, classes, (3, *x.shape[1:2]) if steps else 3)

    @jax.jit
    def both(params):
        def loss(p):
            logits, state = model.step(p, x, jax.random.key(1))
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[..., None], -1)), state

        return model.apply(params, x, False, None), jax.grad(loss, has_aux=True)(params)

    params = jax.jit(model.init)(jax.random.key(0))
    logits, (gradient, state) = both(params)
    assert logits.shape == ((3, x.shape[1], classes) if steps else (3, classes)) and np.isfinite(logits).all()
    for path, leaf in flat_paths(gradient).items():
        assert np.isfinite(leaf).all() and (np.any(leaf) != path.startswith(STATE)), path
    assert model.has_state == (STATE in params) == bool(state)


def batch_of(sample, size):
    """Samples of which some have padding, where the spec has padded ones."""
    if sample.kind is SEQUENCES:
        x = rng.integers(0, sample.tokens, (size, *sample.shape)).astype(np.int32)
    else:
        x = rng.normal(size=(size, *sample.shape)).astype(np.float32)
    return pad(x, np.arange(sample.shape[0], sample.shape[0] - size, -1)) if sample.padded else x


@pytest.mark.parametrize(
    "name,sample,says",
    [
        ("char_lstm", SampleSpec((28, 28, 1)), r"does not take images \(28, 28, 1\); allowed: token sequences \(T,\)"),
        ("gru", TOKENS, r"does not take token sequences \(7,\); allowed: series \(T, C\)"),
        ("cnn1d", SampleSpec((28, 28, 1)), r"does not take images \(28, 28, 1\); allowed: series \(T, C\)"),
        ("resnet18", SERIES, r"does not take series \(9, 3\); allowed: images \(H, W, C\)"),
        ("word_lstm", SampleSpec((7,), SEQUENCES), "needs the number of tokens, which the data set does not tell"),
        ("alexnet", SampleSpec((8, 8, 3)), r"does not take images \(8, 8, 3\): .*too small"),
    ],
)
def test_other_samples_are_refused_in_one_line(name, sample, says):
    with pytest.raises(UserError, match=f"config.model.name: '{name}' {says}") as caught:
        network(name, sample=sample)
    assert "\n" not in str(caught.value)


def test_a_classifier_has_no_output_for_each_step():
    with pytest.raises(UserError, match=r"'gru' returns \(2, 4\) for 2 series; allowed: \(2, 9, 4\)"):
        network("gru", sequence=True)


# Padding and order.

PADDED = ("cnn1d", "gru", "char_lstm", "text_lstm", "transformer_lm", "word_lstm")


@pytest.mark.parametrize("name", slow_except(PADDED, "gru"))
def test_padding_changes_nothing(name):
    """Outputs of a short sample are those of an array that ends with it."""
    kind, tokens = CASES[name][0].kind, CASES[name][0].tokens
    whole, short = CASES[name][0].shape, (5, *CASES[name][0].shape[1:])
    model, cut = (
        network(name, sample=SampleSpec(shape, kind, tokens, padded), sequence=False if kind is SEQUENCES else None)
        for shape, padded in ((whole, True), (short, False))
    )
    params = jax.jit(model.init)(jax.random.key(0))
    cut_params = {**params, "positions": params["positions"][:5]} if "positions" in params else params
    x = pad(batch_of(SampleSpec(whole, kind, tokens), 3), np.full(3, 5))
    evaluate = jax.jit(lambda p, x: model.apply(p, x, False, None))
    got = evaluate(params, x)
    tiny.close(got, jax.jit(lambda p: cut.apply(p, x[:, :5], False, None))(cut_params), 1e-5)
    longer = x.copy()
    longer[:, 5] = x[:, 0]
    assert np.abs(evaluate(params, longer) - got).max() > 1e-6  # one more step does


@pytest.mark.parametrize("name", slow_except(("char_lstm", "word_lstm", "transformer_lm"), "char_lstm"))
def test_no_step_sees_a_later_one(name):
    model = network(name)
    params = jax.jit(model.init)(jax.random.key(0))
    x = batch_of(SampleSpec((7,), SEQUENCES, 11), 2)
    other = x.copy()
    other[:, 4] = (x[:, 4] + 1) % 11
    evaluate = jax.jit(lambda x: model.apply(params, x, False, None))
    one, two = np.asarray(evaluate(x)), np.asarray(evaluate(other))
    tiny.close(one[:, :4], two[:, :4], 1e-6)
    assert (np.abs(one[:, 4:] - two[:, 4:]).max((0, 2)) > 1e-6).all()


def test_the_last_steps_logits_are_those_of_every_step():
    every, last = network("char_lstm"), network("char_lstm", sequence=False)
    params = jax.jit(every.init)(jax.random.key(0))
    x = batch_of(TOKENS, 3)  # of 7, 6 and 5 steps
    logits, of_last = (
        np.asarray(jax.jit(model.apply, static_argnums=2)(params, x, False, None)) for model in (every, last)
    )
    tiny.close(of_last, logits[np.arange(3), [6, 5, 4]], 1e-6)


# Norms.


@pytest.mark.slow
@pytest.mark.parametrize("name,norm", [("resnet18", "group"), ("vgg19", "none")])
def test_other_norms_have_no_state(name, norm):
    model = network(name, norm=norm)
    assert not model.has_state and norm_leaves(model) == set()
    paths = flat_paths(model.shapes())
    assert any("norm" in path for path in paths) == (norm == "group")
    assert ("conv00/bias" in paths) == (norm == "none")


@pytest.mark.slow
@pytest.mark.parametrize("name", RESIDUAL)
def test_every_norm_of_a_residual_network_has_state(name):
    model = network(name)
    norms = {path.rpartition("/")[0] for path in norm_leaves(model)}
    state = {
        path.rpartition("/")[0].partition("/batch_stats/")[2] for path in flat_paths(model.shapes()) if "@" in path
    }
    assert norms == state and all("norm" in path for path in norms)
    assert len(norms) == {"resnet18": 20, "resnet50": 53}[name]


@pytest.mark.parametrize(
    "changes,allowed",
    [
        ({"name": "conv2", "norm": "group"}, r"allowed is batch \(the default, which is not read\) with .*'conv2'"),
        ({"name": "resnet50", "norm": "none"}, "allowed is batch or group with config.model.name='resnet50'"),
        ({"name": "my.py:Net", "norm": "none"}, "allowed is batch .*my.py:Net"),
        ({"norm": "layer"}, "allowed is one of batch, group, none"),
        ({"state": "global"}, "allowed is one of average"),
    ],
)
def test_norms_that_a_network_does_not_have_are_refused(changes, allowed):
    config = tiny.config("fedavg")
    with config.ignore_type():
        for key, value in changes.items():
            config.model[key] = value
    with pytest.raises(UserError, match=rf"config.model.(norm|state)=.*{allowed}"):
        validate(config)


def test_a_norm_that_a_network_has_is_taken():
    validate(tiny.config("fedavg", model__name="resnet18", model__norm="group", model__width=0.05))


# matrix products instead of convolutions


@pytest.mark.parametrize("name", slow_except(("cnn", "cnn1d", "alexnet", "resnet18"), "cnn1d"))
def test_convolutions_are_matrix_products(name):
    model = network(name)
    names = tiny.primitives(
        lambda p, x: model.apply(p, x, True, jax.random.key(0)), model.shapes(), batch_of(model.sample, 2)
    )
    assert "conv_general_dilated" not in names and "dot_general" in names


@pytest.mark.slow
def test_series_of_one_step_and_of_none():
    """An empty sample counts as one step of zeros for the GRU, and as nothing for the mean; no output is NaN."""
    sample = SampleSpec((3, 2), FEATURES, padded=True)
    x = np.full((2, 3, 2), np.nan, np.float32)
    x[0, 0] = 1.0
    for name in ("cnn1d", "gru"):
        model = network(name, sample=sample)
        logits = jax.jit(lambda key, model=model: model.apply(model.init(key), x, False, None))(jax.random.key(0))
        assert np.isfinite(logits).all() and (np.asarray(logits[0]) != logits[1]).any()


@pytest.mark.slow
def test_the_table_of_the_docs_is_the_commands():
    text = (ROOT / "docs" / "networks.md").read_text()
    for line in network_table():
        assert f"{line}\n" in text
