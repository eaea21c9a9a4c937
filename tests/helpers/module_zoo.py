"""Modules of a user's own, each with something that a simulator may trip over. Images are `[B, 6, 6, 1]`."""

from __future__ import annotations

import enum
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

SHAPE = (6, 6, 1)


def flat(x):
    return x.reshape(x.shape[0], -1)


class Buffer(nnx.Variable):
    """A variable of a user's own kind."""


# Modules that look across their batch. Each is given the hidden units [B, 8] and gives as many.


def batch_norm(module, h):
    return (h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-5)


def attention(module, h):
    return jax.nn.softmax(h @ h.T / 8.0, axis=-1) @ h


def batch_max(module, h):
    return h - jax.lax.stop_gradient(h.max(0))


def softmax_over_batch(module, h):
    return jax.nn.softmax(h, axis=0)


def first_of_batch(module, h):
    return h - h[0]


def rolled(module, h):
    return jnp.roll(h, 1, axis=0)


def next_to(module, h):
    return h + 0.001 * jnp.concatenate([h[1:], h[:1]])


def in_order(module, h):
    return jnp.sort(h, axis=0)


def ranked(module, h):
    return h * jnp.argsort(jnp.argsort(h[:, 0])).astype(jnp.float32)[:, None]


def own_mean_of_all(module, h):
    return h / (1.0 + jnp.abs(h).mean())


def by_size(module, h):
    return h / h.shape[0]


def only_in_large_batches(module, h):
    return h - h.mean(0) if h.shape[0] > 60 else h


def past_the_64th(module, h):
    return jnp.concatenate([h[:64], h[64:] - h[:64].mean(0)])


def scaled_in_large_batches(module, h):
    return h * (1.0 if h.shape[0] <= 60 else 0.5)


def noise_by_position(module, h):
    return h + 0.1 * jax.random.normal(jax.random.key(3), h.shape)


def behind_a_gate_of_zero(module, h):
    return h + module.param("gate", nn.initializers.zeros, ()) * h.mean(0)


def behind_a_closed_sigmoid(module, h):
    return h + jax.nn.sigmoid(module.param("gate", nn.initializers.constant(-30.0), ())) * h.mean(0)


def behind_a_relu_that_is_dead(module, h):
    gate = module.param("gate", nn.initializers.constant(-1.0), (8,))
    return h + nn.relu(gate) * h.mean(0)


def batch_norm_of_flax(module, h):
    return nn.BatchNorm(use_running_average=False)(h)


def weak(module, h):
    return h + 1e-4 * h.mean(0)


def in_bfloat16(module, h):
    h = h.astype(jnp.bfloat16)
    return h - h.mean(0)


ACROSS = [
    batch_norm, attention, batch_max, softmax_over_batch, first_of_batch, rolled, next_to, in_order, ranked,
    own_mean_of_all, by_size, only_in_large_batches, past_the_64th, scaled_in_large_batches, noise_by_position,
    behind_a_gate_of_zero, behind_a_closed_sigmoid, behind_a_relu_that_is_dead, batch_norm_of_flax, weak, in_bfloat16,
]  # fmt: skip

# Such that treat each image by itself.


def plain(module, h):
    return h


def layer_norm(module, h):
    return nn.LayerNorm()(h)


def group_norm(module, h):
    return nn.GroupNorm(num_groups=2)(h)


def statistics_in_training_only(module, h):
    return h if module.is_evaluating else (h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-5)


def deep_bfloat16(module, h):
    for _ in range(6):
        h = nn.relu(nn.Dense(64, dtype=jnp.bfloat16)(h))
    return h


def deep_float16(module, h):
    for _ in range(3):
        h = nn.tanh(nn.Dense(64, dtype=jnp.float16)(h))
    return h


def nearest_code(module, h):
    codes = module.param("codes", nn.initializers.normal(1.0), (16, 8))
    return codes[jnp.argmin(((h[:, None] - codes) ** 2).sum(-1), axis=-1)] + h


def by_row(module, h):
    return h[jnp.arange(h.shape[0]), :] * jnp.take_along_axis(h, h.argmax(-1)[:, None], axis=1)


def attention_within_an_image(module, h):
    return nn.MultiHeadDotProductAttention(num_heads=2)(h.reshape(-1, 2, 4)).reshape(h.shape)


def mapped_over_images(module, h):
    return jax.vmap(lambda one: one / jnp.linalg.norm(one))(h)


def scanned(module, h):
    return nn.RNN(nn.GRUCell(4))(h.reshape(-1, 4, 2))[:, -1]


def logarithms(module, h):
    return jnp.where(h > 0, jnp.log(jnp.where(h > 0, h, 1.0)), 0.0)


def running_average_alone(module, h):
    return nn.BatchNorm(use_running_average=True)(h)


ALONE = [
    plain, layer_norm, group_norm, statistics_in_training_only, deep_bfloat16, deep_float16, nearest_code, by_row,
    attention_within_an_image, mapped_over_images, scanned, logarithms, running_average_alone,
]  # fmt: skip


class Around(nn.Module):
    """One of the above between two dense layers."""

    inner: object
    classes: int = 4
    is_evaluating = False

    @nn.compact
    def __call__(self, x, train):
        object.__setattr__(self, "is_evaluating", not train)
        h = nn.Dense(8)(flat(x))
        return nn.Dense(self.classes)(self.inner(self, h))


# Variables that are no params.


class NnxFixed(nnx.Module):
    """Fixed variables of all kinds and in all places; 36 hidden units."""

    def __init__(self, classes, *, rngs):
        self.projection = Buffer(jax.random.normal(rngs.params(), (36, 36)) / 6)
        self.constant = Buffer(jax.random.normal(jax.random.key(7), (36,)))
        self.order = nnx.Variable(jax.random.permutation(rngs.params(), 36))
        self.parts = nnx.List([Buffer(jnp.float32(0.5)), nnx.Dict(scale=nnx.Cache(jnp.full((36,), 2.0, jnp.bfloat16)))])
        self.bare = jax.random.normal(rngs(), (36,))
        self.indices = np.arange(36)[::-1]
        self.seen = nnx.Variable(jnp.array([True, False]))
        self.factor = nnx.Variable(3)
        self.out = nnx.Linear(36, classes, rngs=rngs)

    def __call__(self, x):
        h = flat(x)[:, self.indices] @ self.projection[...] + self.constant[...]
        h = h[:, self.order[...]] * self.parts[0][...] * self.parts[1]["scale"][...].astype(jnp.float32) + self.bare
        return self.out(jnp.where(self.seen[0], h, 0) * self.factor.get_value() / 3)


class LinenFixed(nn.Module):
    """Fixed variables in collections, whole numbers among them."""

    classes: int

    @nn.compact
    def __call__(self, x):
        normal = nn.initializers.normal(0.2)
        h = flat(x) @ self.variable("buffers", "projection", lambda: normal(self.make_rng("params"), (36, 36))).value
        order = self.variable("constants", "order", lambda: jax.random.permutation(self.make_rng("noise"), 36)).value
        scale = self.variable("constants", "scale", lambda: jnp.full((36,), 2.0, jnp.bfloat16)).value
        h = nn.BatchNorm(use_running_average=True)(h[:, order] * scale.astype(jnp.float32))
        return nn.Dense(self.classes)(h)


class NnxCounter(nnx.Module):
    def __init__(self, classes, *, rngs):
        self.calls, self.out = Buffer(jnp.zeros((), jnp.int32)), nnx.Linear(36, classes, rngs=rngs)

    def __call__(self, x):
        self.calls[...] = self.calls[...] + 1
        return self.out(flat(x)) * jnp.where(self.calls[...] > 3, 1.0, 0.1)


class NnxCountsInTraining(nnx.Module):
    def __init__(self, classes, *, rngs):
        self.calls, self.out = Buffer(jnp.zeros(())), nnx.Linear(36, classes, rngs=rngs)
        self.training = False

    def __call__(self, x):
        if self.training:
            self.calls[...] += 1
        return self.out(flat(x)) + self.calls[...]


class NnxMakesAVariable(nnx.Module):
    def __init__(self, classes, *, rngs):
        self.out = nnx.Linear(36, classes, rngs=rngs)

    def __call__(self, x):
        self.last = nnx.Cache(x.mean())
        return self.out(flat(x))


class NnxBatchNorm(nnx.Module):
    def __init__(self, classes, *, rngs):
        self.norm, self.out = nnx.BatchNorm(36, rngs=rngs), nnx.Linear(36, classes, rngs=rngs)

    def __call__(self, x):
        return self.out(self.norm(flat(x)))


class NnxChangesAParam(nnx.Module):
    def __init__(self, classes, *, rngs):
        self.out = nnx.Linear(36, classes, rngs=rngs)

    def __call__(self, x):
        self.out.kernel[...] = self.out.kernel[...] / jnp.linalg.norm(self.out.kernel[...])
        return self.out(flat(x))


class LinenCounter(nn.Module):
    """Counts in training, where it may."""

    classes: int

    @nn.compact
    def __call__(self, x, train):
        calls = self.variable("counts", "calls", lambda: jnp.zeros(()))
        if train and self.is_mutable_collection("counts"):
            calls.value += 1
        return nn.Dense(self.classes)(flat(x)) + calls.value


class LinenNewInTraining(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, train):
        if train:
            self.variable("counts", "calls", lambda: jnp.zeros(()))
        return nn.Dense(self.classes)(flat(x))


class NnxKeepsAKey(nnx.Module):
    def __init__(self, classes, *, rngs):
        self.key, self.out = nnx.Variable(rngs.params()), nnx.Linear(36, classes, rngs=rngs)

    def __call__(self, x):
        return self.out(flat(x)) + jax.random.normal(self.key[...], (self.out.out_features,))


class ChangesShape(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, train):
        seen = self.variable("seen", "rows", lambda: jnp.zeros((1, 36)))
        if train:
            seen.value = jnp.concatenate([seen.value, flat(x)[:1]])
        return nn.Dense(self.classes)(flat(x))


class ChangesType(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, train):
        seen = self.variable("seen", "mean", lambda: jnp.zeros(36))
        if train:
            seen.value = flat(x).mean(0).astype(jnp.bfloat16)
        return nn.Dense(self.classes)(flat(x))


class HalfPrecision(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, train):
        h = nn.Dense(8)(flat(x))
        seen = self.variable("seen", "mean", lambda: jnp.zeros(8, jnp.bfloat16))
        if train:
            seen.value = h.mean(0).astype(jnp.bfloat16)
        return nn.Dense(self.classes)(h - seen.value)


class CountsInWholeNumbers(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, train):
        calls = self.variable("counts", "calls", lambda: jnp.zeros((), jnp.int32))
        if train:
            calls.value += 1
        return nn.Dense(self.classes)(flat(x))


class ChangesInEvaluation(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, train):
        last = self.variable("seen", "last", lambda: jnp.zeros(36))
        last.value = flat(x).mean(0)
        return nn.Dense(self.classes)(flat(x))


# with the words in which it is refused
KEEPS_STATE = [
    (NnxCounter, "keeps state between calls"), (NnxMakesAVariable, "keeps state between calls"),
    (NnxChangesAParam, "keeps state between calls"), (LinenNewInTraining, "counts"),
    (NnxKeepsAKey, "keeps a random key"), (CountsInWholeNumbers, "calls: changed by a call in training"),
    (ChangesInEvaluation, "last: changed by a call in evaluation"),
    (ChangesShape, r"shape or type changes in training \(seen/rows: float32\[1, 36\], then float32\[2, 36\]\)"),
    (ChangesType, r"shape or type changes in training \(seen/mean: float32\[36\], then bfloat16\[36\]\)"),
    (HalfPrecision, r"has bfloat16 state \(seen/mean\); allowed: float32"),
]  # fmt: skip


# Numbers that no key of JAX gives.


class NumpyInTheCall(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes)(flat(x)) * np.random.default_rng().normal(size=self.classes)


class NumpyInTrainingOnly(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, train):
        noise = np.random.default_rng().normal(size=self.classes) if train else 0.0
        return nn.Dense(self.classes)(flat(x)) + noise


class NumpyInTheInit(nnx.Module):
    def __init__(self, classes, *, rngs):
        self.table, self.out = Buffer(np.random.default_rng().normal(size=36)), nnx.Linear(36, classes, rngs=rngs)

    def __call__(self, x):
        return self.out(flat(x) * self.table[...])


class NumpyInAClosure(nnx.Module):
    def __init__(self, classes, *, rngs):
        table = np.random.default_rng().normal(size=36)
        self.scaled, self.out = lambda h: h * table, nnx.Linear(36, classes, rngs=rngs)

    def __call__(self, x):
        return self.out(self.scaled(flat(x)))


_CALLS = itertools.count()


class CountsInPython(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes)(flat(x)) * (1 + next(_CALLS))


UNREPEATABLE = [NumpyInTheCall, NumpyInTrainingOnly, NumpyInTheInit, NumpyInAClosure, CountsInPython]


# Training switches. `call` builds a linen class whose __call__ has these parameters; `drops` says when it should drop.


def with_call(parameters, told, fields=""):
    """A linen class whose __call__ takes `x` and `parameters`, and drops nearly all where `told` is true."""
    names = {"nn": nn, "flat": flat, "Phase": Phase}
    code = (
        f"class Switched(nn.Module):\n    classes: int\n    {fields or 'rate: float = 0.9'}\n    @nn.compact\n"
        f"    def __call__(self, x{parameters}):\n"
        f"        h = nn.Dropout(0.9)(nn.Dense(32)(flat(x)), deterministic=not ({told}))\n"
        "        return nn.Dense(self.classes)(h)\n"
    )
    exec(code, names)
    return names["Switched"]


class Phase(enum.Enum):
    TRAIN = 1
    EVAL = 2


SWITCHES = [
    (", train", "train"), (", training=False", "training"), (", is_training=False", "is_training"),
    (", is_train: bool = True", "is_train"), (", isTraining=False", "isTraining"), (", train_mode=False", "train_mode"),
    (", *, training", "training"), (", train, /", "train"), (", train=None", "train"),
    (", deterministic=True", "not deterministic"), (", *, deterministic", "not deterministic"),
    (", inference=False", "not inference"), (", use_running_average=True", "not use_running_average"),
    (", eval=False", "not eval"), (", is_eval=True", "not is_eval"), (", evaluation=True", "not evaluation"),
    (", test=True", "not test"), (", eval_mode=True", "not eval_mode"), (", enable_dropout=False", "enable_dropout"),
    (", train=False, deterministic=True", "train and not deterministic"),
    (", mode='eval'", "mode == 'train'"), (", mode='train'", "mode == 'train'"), (", mode", "mode == 'train'"),
    (", mode='TEST'", "mode == 'TRAIN'"), (", mode=Phase.EVAL", "mode is Phase.TRAIN"),
    (", mode: Phase = Phase.TRAIN", "mode is Phase.TRAIN"), (", temperature=1.0, train=False", "train"),
    (", train: int = 0", "train"),
]  # fmt: skip
FIELDS = [
    ("", "self.train", "train: bool = False"), ("", "not self.deterministic", "deterministic: bool = True"),
    ("", "self.is_training", "is_training: bool"), ("", "not self.inference", "inference: bool = True"),
    (", deterministic=None", "not nn.merge_param('deterministic', self.deterministic, deterministic)",
     "deterministic: bool | None = None"),
    (", train=False", "train and self.eval == 'x'", "eval: str = 'x'"),  # a field that is none
    ("", "self.mode == 'train'", "mode: str = 'test'"),
]  # fmt: skip


class NnxSwitched(nnx.Module):
    """Dropout that Flax's `train()` and `eval()` switch."""

    def __init__(self, classes, *, rngs):
        self.hidden, self.out = nnx.Linear(36, 32, rngs=rngs), nnx.Linear(32, classes, rngs=rngs)
        self.drop = nnx.Dropout(0.9, rngs=rngs)

    def dropped(self, h):
        return self.drop(h)

    def __call__(self, x):
        return self.out(self.dropped(self.hidden(flat(x))))


class NnxByAttribute(NnxSwitched):
    def __init__(self, classes, *, rngs):
        super().__init__(classes, rngs=rngs)
        self.is_training = False

    def dropped(self, h):
        return self.drop(h, deterministic=not self.is_training)


class NnxTrainIsAnAttribute(NnxSwitched):
    def __init__(self, classes, *, rngs):
        super().__init__(classes, rngs=rngs)
        self.train = False

    def dropped(self, h):
        return self.drop(h, deterministic=not self.train)


class NnxByCall(NnxSwitched):
    def __call__(self, x, *, is_training):
        h = self.hidden(flat(x))
        return self.out(self.drop(h, deterministic=not is_training))


class NnxByInit(NnxSwitched):
    def __init__(self, classes, training: bool = False, *, rngs):
        super().__init__(classes, rngs=rngs)
        self.how = training

    def dropped(self, h):
        return self.drop(h, deterministic=not self.how)


class NnxOwnTrain(NnxSwitched):
    def __init__(self, classes, *, rngs):
        super().__init__(classes, rngs=rngs)
        self.rate = 1

    def train(self, **attributes):
        self.rate = 2

    def eval(self, **attributes):
        self.rate = 1

    def dropped(self, h):
        return self.drop(h, deterministic=self.rate == 1)


class NnxMode(NnxSwitched):
    def __init__(self, classes, *, rngs):
        super().__init__(classes, rngs=rngs)
        self.mode = Phase.EVAL

    def dropped(self, h):
        return self.drop(h, deterministic=self.mode is Phase.EVAL)


NNX_SWITCHES = [NnxSwitched, NnxByAttribute, NnxTrainIsAnAttribute, NnxByCall, NnxByInit, NnxOwnTrain, NnxMode]


# Random numbers by other names.


def drawing(draw):
    """A linen class that adds `draw(module)` to its hidden units in training."""

    class Draws(nn.Module):
        classes: int

        @nn.compact
        def __call__(self, x, train):
            h = nn.Dense(32)(flat(x))
            if train:
                h = h + draw(self)
            return nn.Dense(self.classes)(h)

    return Draws


def normal(key):
    return jax.random.normal(key, (32,))


def has_rng(module):
    return normal(module.make_rng("noise")) if module.has_rng("noise") else 0.0


def two_names(module):
    return normal(module.make_rng("one")) - normal(module.make_rng("two"))


def drop_path(module):
    return nn.Dropout(0.5, rng_collection="droppath")(jnp.ones(32), deterministic=False)


DRAWS = [
    drop_path, has_rng, two_names, lambda m: normal(m.make_rng("xyz")), lambda m: normal(m.make_rng()),
    lambda m: normal(m.make_rng("dropout")),
]  # fmt: skip


# Dropout that does nothing, and random numbers in evaluation.


class UnknownSwitch(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, wet=False):
        return nn.Dense(self.classes)(nn.Dropout(0.5)(flat(x), deterministic=not wet))


class UnknownBranch(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, wet=False):
        x = flat(x)
        if wet:
            x = nn.Dropout(0.5)(x, deterministic=False)
        return nn.Dense(self.classes)(x)


class UnknownKeywords(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, **options):
        x = flat(x)
        return nn.Dense(self.classes)(nn.Dropout(0.5)(x, deterministic=not options.get("train", False)))


class OneOfTwo(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dropout(0.5)(flat(x), deterministic=not train)
        return nn.Dense(self.classes)(nn.Dropout(0.5, name="second")(x, deterministic=True))


class NnxUnknown(nnx.Module):
    def __init__(self, classes, *, rngs):
        self.drop, self.out = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(36, classes, rngs=rngs)

    def __call__(self, x, wet=False):
        return self.out(self.drop(flat(x), deterministic=not wet))


SILENT = [UnknownSwitch, UnknownBranch, UnknownKeywords, OneOfTwo, NnxUnknown]


class RateZero(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes)(nn.Dropout(0.0)(flat(x), deterministic=True))


class AlwaysDrops(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes)(nn.Dropout(0.5, deterministic=False)(flat(x)))


class NnxAlwaysDrops(nnx.Module):
    def __init__(self, classes, *, rngs):
        self.drop, self.out = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(36, classes, rngs=rngs)

    def __call__(self, x):
        return self.out(self.drop(flat(x), deterministic=False))


class NnxNoise(nnx.Module):
    """Noise behind a gate of zero."""

    def __init__(self, classes, *, rngs):
        self.rngs, self.out = rngs, nnx.Linear(36, classes, rngs=rngs)
        self.gate = nnx.Param(jnp.zeros(()))

    def __call__(self, x):
        return self.out(flat(x) + self.gate[...] * jax.random.normal(self.rngs.noise(), (36,)))


DRAWS_IN_EVALUATION = [AlwaysDrops, NnxAlwaysDrops, NnxNoise]


class AsksForAKeyItDoesNotUse(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, train):
        x, key = flat(x), self.make_rng("noise")
        if train:
            x = x + jax.random.normal(key, x.shape)
        return nn.Dense(self.classes)(x)
