"""Where targets are the next tokens, a module's outputs must not depend on later steps: `Task.causal`."""

from __future__ import annotations

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokens
from marked import slow_except

from prfl_jax.models.batch_checks import BatchChecks
from prfl_jax.models.build import wrap_module
from prfl_jax.models.checked_module import Module
from prfl_jax.models.choices import MODELS
from prfl_jax.models.linen_adapter import linen_functions
from prfl_jax.system.errors import UserError
from prfl_jax.system.jax_settings import root_key
from prfl_jax.tasks import FEATURES, SEQUENCES, SampleSpec

SAMPLE = SampleSpec((9,), SEQUENCES, tokens=12)
PADDED = SampleSpec((9,), SEQUENCES, tokens=12, padded=True)
SERIES = SampleSpec((9, 2), FEATURES)


class Steps(nn.Module):
    """Embedded tokens (or series), mixed over steps as `mix` says, and logits at each step."""

    mix: str
    classes: int = 12

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = nn.Embed(12, 8)(x) if x.ndim == 2 else nn.Dense(8)(x)
        return nn.Dense(self.classes)(MIX[self.mix](h))


def _attention(h, mask):
    return nn.MultiHeadDotProductAttention(2)(h, mask=mask)


MIX = {
    "alone": lambda h: h,
    "before": lambda h: h.cumsum(axis=1),
    "masked": lambda h: _attention(h, nn.make_causal_mask(h[..., 0])),
    "by_fft": lambda h: jnp.fft.irfft(jnp.fft.rfft(h, 32, axis=1) * jnp.fft.rfft(jnp.ones(9), 32)[:, None], 32, 1)[
        :, :9
    ],
    "next": lambda h: jnp.roll(h, -1, axis=1),
    "next_of_odd": lambda h: h.at[:, 1:-1:2].set(h[:, 2::2]),
    "last": lambda h: h.at[:, 0].add(1e-3 * h[:, -1]),
    "attention": lambda h: _attention(h, None),
    "mean": lambda h: h + h.mean(axis=1, keepdims=True),
    "backward": lambda h: h[:, ::-1].cumsum(axis=1)[:, ::-1],
}
CAUSAL, AHEAD = (
    ("alone", "before", "masked", "by_fft"),
    ("next", "next_of_odd", "last", "attention", "mean", "backward"),
)


def asked(module, sample, classes=12):
    """The check alone, on two drawings of all params."""
    functions = linen_functions("theirs", module, sample)
    rng, shapes = np.random.default_rng(0), jax.eval_shape(lambda: functions.init(root_key(0)))
    trees = [jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(leaf.dtype), shapes) for _ in range(2)]
    evaluate = jax.jit(lambda tree, x, seed: functions.apply(tree, x, False, jax.random.key(seed)))
    found = Module("theirs", sample, classes, functions, module, True, True)
    BatchChecks(found, evaluate, np.random.default_rng(0)).check_later_steps(trees)


@pytest.mark.parametrize("mix", slow_except(CAUSAL, "by_fft"))
def test_a_causal_module_is_taken(mix):
    asked(Steps(mix), SAMPLE)


@pytest.mark.parametrize("mix", slow_except(AHEAD, "next", "last", "attention"))
def test_a_module_that_looks_ahead_is_found(mix):
    for sample in (SAMPLE, PADDED, SERIES) if mix == "next" else (SAMPLE,):
        with pytest.raises(
            UserError, match="'theirs' looks ahead at later steps: outputs change by .* with (tokens|values) after"
        ):
            asked(Steps(mix), sample)


@pytest.mark.parametrize("name", slow_except(["char_lstm", "word_lstm", "transformer_lm"], "transformer_lm"))
def test_built_in_language_models_are_causal(name):
    module = MODELS.find(name)
    settings = SimpleNamespace(classes=12, tokens=12, width=0.05, init_name="flax", sequence=True)
    given = {key: value for key, value in vars(settings).items() if key in module.__dataclass_fields__}
    asked(module(**given), SAMPLE)


def test_one_step_has_none_after_it():
    asked(Steps("next"), SampleSpec((1,), SEQUENCES, tokens=12))


class Peek(tokens.NextToken):
    """Predicts each token from itself."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(self.classes)(nn.Embed(self.tokens, 8)(jnp.roll(x, -1, axis=1)))


def test_a_user_module_is_asked_where_the_task_is_causal():
    """A task that labels each step of a whole sequence may look ahead."""
    wrap_module("theirs", Peek, SAMPLE, 12, sequence=True)
    with pytest.raises(UserError, match="looks ahead at later steps") as caught:
        wrap_module("theirs", Peek, SAMPLE, 12, sequence=True, causal=True)
    text = str(caught.value)
    assert text.startswith("config.model.name: 'theirs' looks ahead") and "\n" not in text
