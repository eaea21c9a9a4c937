"""The choices of `model.name`, `loss`, `init`, `norm` and `state`; what needs JAX is imported when it is found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from prfl_jax.registry import Lazy, Registry
from prfl_jax.system.errors import refuse
from prfl_jax.tasks import find_task


def _any_module(name: str, found: Any) -> Any:
    """A plugin as it is; `build.wrap_module` checks that it is a Flax module, and what it computes."""
    return found


# Flax module classes; the built-in ones take `classes`, `width` and `init_name`, and some `tokens`, `norm`, `sequence`
MODELS: Registry[Any] = Registry(
    "model.name",
    {
        "conv2": Lazy("prfl_jax.models.nets:Conv2"),
        "vgg11": Lazy("prfl_jax.models.nets:VGG11"),
        "cnn": Lazy("prfl_jax.models.fedmp_nets:CNN"),
        "alexnet": Lazy("prfl_jax.models.fedmp_nets:AlexNet"),
        "vgg19": Lazy("prfl_jax.models.deep_nets:VGG19"),
        "resnet18": Lazy("prfl_jax.models.deep_nets:ResNet18"),
        "resnet50": Lazy("prfl_jax.models.deep_nets:ResNet50"),
        "cnn1d": Lazy("prfl_jax.models.series_nets:CNN1D"),
        "gru": Lazy("prfl_jax.models.series_nets:GRUClassifier"),
        "char_lstm": Lazy("prfl_jax.models.lstm_nets:CharLSTM"),
        "word_lstm": Lazy("prfl_jax.models.lstm_nets:WordLSTM"),
        "text_lstm": Lazy("prfl_jax.models.lstm_nets:TextLSTM"),
        "transformer_lm": Lazy("prfl_jax.models.transformer:TransformerLM"),
    },
    _any_module,
)


@dataclasses.dataclass(frozen=True)
class LossChoice:
    """One choice of `model.loss`.

    Attributes:
      function: from logits `[B, K]` and labels `[B]` to losses `[B]`, see `losses.Loss`.
      log_likelihood: whether it is -log of the label's probability, in a distribution over all classes.
    """

    function: Lazy
    log_likelihood: bool = False


# the loss of a target
LOSSES: Registry[LossChoice] = Registry(
    "model.loss",
    {
        "sigmoid": LossChoice(Lazy("prfl_jax.models.losses:sigmoid_loss")),
        "softmax": LossChoice(Lazy("prfl_jax.models.losses:softmax_loss"), log_likelihood=True),
    },
)

# how the weights of the built-in networks are drawn, see `initializers.Initialization`
INITS: Registry[Any] = Registry(
    "model.init",
    {
        "release": Lazy("prfl_jax.models.initializers:RELEASE"),
        "he": Lazy("prfl_jax.models.initializers:HE"),
        "flax": Lazy("prfl_jax.models.initializers:FLAX"),
    },
)


@dataclasses.dataclass(frozen=True)
class Norm:
    """One choice of `model.norm`.

    Attributes:
      layer: (x `[B, ..., C]`, train, name) -> x, inside a linen module.
      networks: the built-in networks that may have it.
      none: whether it does nothing.
    """

    layer: Lazy
    networks: tuple[str, ...]
    none: bool = False

    def __call__(self, x: Any, train: bool, name: str) -> Any:
        """Applies the layer; imports it."""
        return self.layer.load()(x, train, name)


# the normalisation of built-in networks that have one
NORMS: Registry[Norm] = Registry(
    "model.norm",
    {
        "batch": Norm(Lazy("prfl_jax.models.norms:batch_norm"), ("vgg19", "resnet18", "resnet50")),
        "group": Norm(Lazy("prfl_jax.models.norms:group_norm"), ("vgg19", "resnet18", "resnet50")),
        "none": Norm(Lazy("prfl_jax.models.norms:no_norm"), ("vgg19",), none=True),
    },
)
DEFAULT_NORM = "batch"  # networks without norms and a user's own do not read it


@dataclasses.dataclass(frozen=True)
class StateUse:
    """One choice of `model.state`: what becomes of a model's state, such as running statistics.

    Attributes:
      averaged: clients send it, and it is averaged like weights.
      personal: layers with state, their params too, stay with the clients (FedBN, Li et al. 2021): each client has its
        own model, which is evaluated.
      recomputed: it is recomputed over the clients' data before each evaluation (static batch norm, Diao et al. 2021).
    """

    averaged: bool = False
    personal: bool = False
    recomputed: bool = False


# what becomes of a model's state between rounds
STATES: Registry[StateUse] = Registry(
    "model.state",
    {
        "average": StateUse(averaged=True),
        "local": StateUse(personal=True),
        "static": StateUse(recomputed=True),
    },
)


def _norm_fits_the_network(flat: Mapping[str, Any]) -> None:
    """A norm other than the default one needs a network that has it."""
    name, norm = flat["model.name"], flat["model.norm"]
    allowed = [other for other in NORMS if name in NORMS.find(other).networks]
    if norm != DEFAULT_NORM and norm not in allowed:
        words = " or ".join(allowed) if allowed else f"{DEFAULT_NORM} (the default, which is not read)"
        raise refuse("model.norm", norm, f"{words} with config.model.name={name!r}")


def _loss_fits_the_metric(flat: Mapping[str, Any]) -> None:
    """A metric that reads the mean loss as a log-likelihood, such as perplexity, needs a loss that is one."""
    name, loss = flat["task.name"], flat["model.loss"]
    metric = find_task(name).metric
    if metric.log_likelihood and not LOSSES.find(loss).log_likelihood:
        fitting = " or ".join(LOSSES.with_trait(lambda other: other.log_likelihood))
        why = f"whose {metric.name} is computed from the mean -log probability of a label"
        raise refuse("model.loss", loss, f"{fitting} with task.name={name!r}, {why}")


# run by `config/validate.py`
CHECKS: tuple[Callable[[Mapping[str, Any]], None], ...] = (_norm_fits_the_network, _loss_fits_the_metric)
