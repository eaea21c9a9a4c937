"""The table of the built-in networks in docs/networks.md: parameters and FLOP at full size, for usual samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from prfl_jax.models.build import Model, wrap_linen
from prfl_jax.models.choices import MODELS, NORMS
from prfl_jax.tasks import FEATURES, IMAGES, SEQUENCES, SampleSpec


@dataclasses.dataclass(frozen=True)
class Row:
    """What a network is built for.

    Attributes:
      sample, classes: of the data.
      data: the same in words.
      sequence: whether each step has outputs.
    """

    sample: SampleSpec
    classes: int
    data: str
    sequence: bool = False


_CIFAR10 = Row(SampleSpec((32, 32, 3), IMAGES), 10, "CIFAR-10, 32x32x3")
_MNIST = Row(SampleSpec((28, 28, 1), IMAGES), 10, "MNIST, 28x28")
_VOWELS = Row(SampleSpec((29, 12), FEATURES, padded=True), 9, "JapaneseVowels, 29 steps of 12")
_CHARACTERS = Row(SampleSpec((80,), SEQUENCES, tokens=90), 90, "80 of 90 characters", sequence=True)
ROWS = {
    "conv2": Row(SampleSpec((28, 28, 1), IMAGES), 62, "FEMNIST, 28x28"),
    "vgg11": _CIFAR10,
    "cnn": _MNIST,
    "alexnet": _CIFAR10,
    "vgg19": _CIFAR10,
    "resnet18": _CIFAR10,
    "resnet50": _CIFAR10,
    "cnn1d": _VOWELS,
    "gru": _VOWELS,
    "char_lstm": _CHARACTERS,
    "word_lstm": Row(SampleSpec((35,), SEQUENCES, tokens=10_000), 10_000, "35 of 10,000 words", sequence=True),
    "text_lstm": Row(SampleSpec((25,), SEQUENCES, tokens=10_000, padded=True), 2, "25 of 10,000 words"),
    "transformer_lm": _CHARACTERS,
}


def full_size(name: str) -> Model:
    """A built-in network at full size for its row's samples."""
    row, module = ROWS[name], MODELS.find(name)
    fields = module.__dataclass_fields__
    given = {"classes": row.classes, "tokens": row.sample.tokens, "sequence": row.sequence}
    made = module(**{key: value for key, value in given.items() if key in fields})
    return wrap_linen(name, made, row.sample, row.classes, row.sequence)


def network_table() -> Iterator[str]:
    """Lines of Markdown, a row for each built-in network."""
    yield "| `model.name` | samples | outputs | parameters | state | MFLOP | `model.norm` |"
    yield "|---|---|---|---|---|---|---|"
    for name in MODELS:
        row, model = ROWS[name], full_size(name)
        outputs = f"{row.classes:,}, each step" if row.sequence else f"{row.classes:,}"
        norms = ", ".join(norm for norm in NORMS if name in NORMS.find(norm).networks)
        cells = (f"`{name}`", row.data, outputs, f"{model.num_parameters():,}", f"{model.num_state():,}")
        yield f"| {' | '.join(cells)} | {model.flop.total() / 1e6:,.1f} | {norms} |"
