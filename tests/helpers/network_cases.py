"""Samples, classes and a narrow width for every built-in network."""

from __future__ import annotations

from prfl_jax.config.defaults import default_config
from prfl_jax.models import build_model
from prfl_jax.models.choices import MODELS
from prfl_jax.tasks import FEATURES, SEQUENCES, SampleSpec

SERIES = SampleSpec((9, 3), FEATURES, padded=True)
TOKENS = SampleSpec((7,), SEQUENCES, tokens=11, padded=True)
# sample, classes, whether each step has outputs, narrow width
CASES = {
    "conv2": (SampleSpec((28, 28, 1)), 10, False, 0.05),
    "vgg11": (SampleSpec((32, 32, 3)), 10, False, 0.05),
    "cnn": (SampleSpec((28, 28, 1)), 10, False, 0.1),
    "alexnet": (SampleSpec((32, 32, 3)), 10, False, 0.02),
    "vgg19": (SampleSpec((32, 32, 3)), 10, False, 0.05),
    "resnet18": (SampleSpec((16, 16, 3)), 10, False, 0.05),
    "resnet50": (SampleSpec((16, 16, 3)), 10, False, 0.05),
    "cnn1d": (SERIES, 4, False, 0.05),
    "gru": (SERIES, 4, False, 0.05),
    "char_lstm": (TOKENS, 11, True, 0.03),
    "word_lstm": (TOKENS, 11, True, 0.02),
    "text_lstm": (TOKENS, 2, False, 0.1),
    "transformer_lm": (TOKENS, 11, True, 0.1),
}
assert list(CASES) == list(MODELS)
RESIDUAL = ("resnet18", "resnet50")


def settings(name, width=1.0, **changes):
    """The group `model` of a config."""
    group = default_config().model
    group.name, group.width = name, width
    for key, value in changes.items():
        group[key] = value
    return group


def network(name, width=None, sample=None, sequence=None, **changes):
    """A built-in network for its own kind of samples, narrow unless `width` says otherwise."""
    usual, classes, steps, narrow = CASES[name]
    group = settings(name, narrow if width is None else width, **changes)
    return build_model(group, sample or usual, classes, sequence=steps if sequence is None else sequence)
