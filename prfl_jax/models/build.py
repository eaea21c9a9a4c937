"""Any Flax module, linen or nnx, behind one interface of pure functions over a params pytree."""

from __future__ import annotations

import dataclasses
import inspect
import math
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util

from prfl_jax.errors import UserError
from prfl_jax.files import replacing
from prfl_jax.jax_settings import fixed, root_key
from prfl_jax.models.flop_count import BATCH, FlopCount, count_flop
from prfl_jax.models.matmul_conv import convolution, plain_convolutions, with_matmul_conv
from prfl_jax.models.nets import VGG11, Conv2
from prfl_jax.own import find_object

Params = Any  # nested dict of arrays


@dataclasses.dataclass(frozen=True)
class Model:
    """A network as pure functions.

    Args:
      name: what the report calls it.
      input_shape: one sample, `(H, W, C)`.
      classes: number of outputs.
      init: key -> params, a nested dict of float32 arrays.
      apply: (params, x `[B, H, W, C]`, train, key or None) -> logits `[B, classes]`.
      flop: FLOP of the forward pass in training (`flop_count.py`).
    """

    name: str
    input_shape: tuple[int, ...]
    classes: int
    init: Callable[[jax.Array], Params]
    apply: Callable[[Params, jax.Array, bool, jax.Array | None], jax.Array]
    flop: FlopCount = dataclasses.field(default_factory=FlopCount)

    @property
    def leaf_flop(self) -> dict[str, float]:
        """Forward FLOP of each leaf, by `/`-joined path, for one image alone."""
        return self.flop.by_leaf()

    def shapes(self) -> Params:
        """The params as `ShapeDtypeStruct`s; computes nothing."""
        return jax.eval_shape(lambda: self.init(root_key(0)))

    def num_parameters(self) -> int:
        """Values of all leaves."""
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.shapes()))


@fixed()
def build_model(cfg: Any, input_shape: tuple[int, ...], data_classes: int) -> Model:
    """The model of `config.model` for images of `input_shape` and labels `0..data_classes-1`.

    `cfg.name` is `conv2`, `vgg11`, or `module:object` / `file.py:object`: a linen or
    nnx module class or a linen instance, which need know nothing of this package. A
    class that takes `classes` (or `num_classes`) gets it; its own initialisers are used.

    Raises:
      UserError: the module cannot be found, keeps state between calls, or has too few outputs.
    """
    classes = int(cfg.classes or data_classes)
    if classes < data_classes:
        raise UserError(f"config.model.classes: {classes}; allowed: at least the data's {data_classes} classes")
    builtin = {"conv2": Conv2, "vgg11": VGG11}
    if cfg.name in builtin:
        module = builtin[cfg.name](classes=classes, width=cfg.width, init_name=cfg.init)
        return wrap_linen(cfg.name, module, input_shape, classes)
    return wrap_module(cfg.name, find_object(cfg.name, "config.model.name"), input_shape, classes)


def wrap_module(name: str, module: Any, input_shape: tuple[int, ...], classes: int) -> Model:
    """A user's linen class or instance, or nnx class, as a `Model`."""
    if isinstance(module, nn.Module):
        return wrap_linen(name, module, input_shape, classes)
    if not isinstance(module, type) or not issubclass(module, (nn.Module, nnx.Module)):
        raise UserError(f"config.model.name: {name!r} is {module!r}; allowed: a flax linen or nnx module")
    # nnx's metaclass hides the signature of the class, not that of __init__
    takes = inspect.signature(module.__init__).parameters
    outputs = {key: classes for key in ("classes", "num_classes") if key in takes}
    is_linen = issubclass(module, nn.Module)
    make: Any = module
    try:
        if is_linen:
            trial: Any = make(**outputs)
        else:
            jax.eval_shape(lambda: nnx.state(make(**outputs, rngs=nnx.Rngs(root_key(0)))))
    except (Exception, SystemExit) as error:  # whatever a user's own code raises
        said = _first_line(error)
        raise UserError(f"config.model.name: {name!r} cannot be built from {outputs or 'nothing'}: {said}") from error
    if is_linen:
        return wrap_linen(name, trial, input_shape, classes)
    options = _call_options(module.__call__)
    return wrap_nnx(name, lambda rngs: make(**outputs, rngs=rngs), options, input_shape, classes)


def _call_options(function: Any) -> Callable[[bool], dict[str, bool]]:
    """How a module wants to be told of training: `train`/`training`, `deterministic`, or not at all."""
    takes = inspect.signature(function).parameters
    for key in ("train", "training"):
        if key in takes:
            return lambda train: {key: train}
    if "deterministic" in takes:
        return lambda train: {"deterministic": not train}
    return lambda train: {}


def wrap_linen(name: str, module: Any, input_shape: tuple[int, ...], classes: int) -> Model:
    """A linen module as a `Model`; its convolutions become matmuls by interception."""
    options = _call_options(type(module).__call__)
    sample = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)

    @with_matmul_conv
    def init_variables(key: jax.Array) -> Any:
        rngs = {"params": key, "dropout": key}
        return module.init(rngs, jnp.zeros(sample.shape, sample.dtype), **options(False))

    @with_matmul_conv
    def apply(params: Params, x: jax.Array, train: bool, key: jax.Array | None) -> jax.Array:
        rngs = None if key is None else {"dropout": key}
        return module.apply({"params": params}, x, rngs=rngs, **options(train))

    try:
        variables = jax.eval_shape(lambda: init_variables(root_key(0)))
    except (Exception, SystemExit) as error:  # whatever a user's own code raises
        raise _not_taken(name, input_shape, error) from error
    state = [collection for collection in variables if collection != "params"]
    if state:
        raise UserError(
            f"config.model.name: {name!r} keeps state {state} between calls; allowed: modules with params only "
            "(batch norm without tracked statistics, or group norm)"
        )
    model = Model(name, tuple(input_shape), classes, lambda key: init_variables(key)["params"], apply)
    return _checked(model)


def wrap_nnx(
    name: str,
    make: Callable[[nnx.Rngs], Any],
    options: Callable[[bool], dict[str, bool]],
    input_shape: tuple[int, ...],
    classes: int,
) -> Model:
    """An nnx module as a `Model`."""

    def build(key: jax.Array) -> Any:
        module = make(nnx.Rngs(jax.random.fold_in(key, 2), params=key, dropout=jax.random.fold_in(key, 1)))
        for _, part in nnx.iter_graph(module):
            if isinstance(part, nnx.Conv):
                part.conv_general_dilated = convolution()
        return module

    def init(key: jax.Array) -> Params:
        return _text_keys(nnx.to_pure_dict(nnx.state(build(key), nnx.Param)))

    def apply(params: Params, x: jax.Array, train: bool, key: jax.Array | None) -> jax.Array:
        # rebuilt under the trace: only its structure is used, the values are params
        module = build(root_key(0) if key is None else key)
        state = nnx.state(module, nnx.Param)
        nnx.replace_by_pure_dict(state, params)
        nnx.update(module, state)
        module.train() if train else module.eval()
        return module(x, **options(train))

    kinds = jax.eval_shape(lambda: nnx.to_pure_dict(nnx.state(build(root_key(0)), nnx.BatchStat)))
    if jax.tree.leaves(kinds):
        raise UserError(f"config.model.name: {name!r} tracks batch statistics; allowed: modules with params only")
    model = Model(name, tuple(input_shape), classes, init, apply)
    return _checked(model)


def _checked(model: Model) -> Model:
    """Checks shapes without computing, and fills `flop`."""
    try:
        out = jax.eval_shape(lambda p: model.apply(p, jnp.zeros((2, *model.input_shape)), False, None), model.shapes())
    except (Exception, SystemExit) as error:  # whatever a user's own code raises
        raise _not_taken(model.name, model.input_shape, error) from error
    found, wanted = getattr(out, "shape", f"a {type(out).__name__}"), (2, model.classes)
    if found != wanted:
        raise UserError(f"config.model.name: {model.name!r} returns {found} for 2 images; allowed: {wanted}")
    paths = flat_paths(model.shapes())
    for path, leaf in paths.items():
        if leaf.dtype != jnp.float32:
            raise UserError(f"config.model.name: {model.name!r} has {leaf.dtype} params ({path}); allowed: float32")
    return dataclasses.replace(model, flop=_forward_flop(model, paths))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _not_taken(name: str, shape: tuple[int, ...], error: BaseException) -> UserError:
    return UserError(f"config.model.name: {name!r} does not take images {tuple(shape)}: {_first_line(error)}")


def _text_keys(tree: Any) -> Any:
    """Numbers, which nnx counts the parts of a list by, as text: what a saved model has."""
    return {str(key): _text_keys(part) for key, part in tree.items()} if isinstance(tree, dict) else tree


def flat_paths(params: Params) -> dict[str, Any]:
    """Leaves by `/`-joined path, in the order of `jax.tree.leaves`."""
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    return {"/".join(str(getattr(k, "key", k)) for k in path): leaf for path, leaf in flat}


def _forward_flop(model: Model, leaves: dict[str, Any]) -> FlopCount:
    """FLOP of a forward pass in training, traced with plain convolutions; `leaves` as `flat_paths` gives them."""
    tree = jax.tree.structure(model.shapes())

    def forward(values: list[jax.Array], images: jax.Array) -> jax.Array:
        return model.apply(jax.tree.unflatten(tree, values), images, True, root_key(0))

    images = jax.ShapeDtypeStruct((BATCH, *model.input_shape), jnp.float32)
    try:
        with plain_convolutions():
            return count_flop(forward, leaves, images)
    except (Exception, SystemExit) as error:  # whatever a user's own code raises
        raise _not_taken(model.name, model.input_shape, error) from error


def save_model(path: str, params: Params) -> None:
    """Writes params as `.npz`, one array a leaf, keyed by `/`-joined path; atomic.

    A type that NumPy's files do not know (bfloat16) is written as float32, which holds all its values.
    """
    arrays: dict[str, Any] = {key: np.asarray(leaf) for key, leaf in flat_paths(params).items()}
    arrays = {key: a.astype(np.float32) if a.dtype.kind == "V" else a for key, a in arrays.items()}
    with replacing(path) as part, open(part, "wb") as f:
        np.savez(f, **arrays)


def load_model(path: str) -> Params:
    """Reads params written by `save_model` (nested dict of NumPy arrays).

    Raises:
      UserError: no such file, or not one of these.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return traverse_util.unflatten_dict({key: file[key] for key in file.files}, sep="/")
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        said = _first_line(error)
        raise UserError(f"{path}: not a saved model ({said}); allowed: a final_model.npz of a run") from error
