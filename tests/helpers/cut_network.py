"""Conv2 with some of its channels really cut out, trained alone in float64: an oracle for sub-models of channels.

Written without the package's modules: plain slices of the kernels, `lax.conv`, and the gradient of this small network.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prfl_jax.submodel.leading import rate


def kept_channels(layers, percent, shift=0):
    """(inputs, outputs) that each layer keeps: `ceil(C r)` hidden channels from channel `shift` on, around the end."""
    kept, before = [], np.arange(layers[0].kernel[-2])
    whole = len(before)
    for number, layer in enumerate(layers):
        inputs, outputs = layer.kernel[-2:]
        copies = inputs // whole
        rows = np.concatenate([copy * whole + before for copy in range(copies)])
        if number == len(layers) - 1:
            after = np.arange(outputs)
        else:
            after = (shift + np.arange(math.ceil(round(outputs * rate(percent), 9)))) % outputs
        kept.append((rows, after))
        before, whole = after, outputs
    return kept


def cut(params, layers, kept):
    """The small network: (kernel, bias) of each layer, float64."""
    small = []
    for layer, (rows, columns) in zip(layers, kept, strict=True):
        kernel, bias = (np.asarray(params[layer.name][name], np.float64) for name in ("kernel", "bias"))
        small.append((kernel[..., rows, :][..., columns], bias[columns]))
    return small


def paste(params, layers, kept, small):
    """`params` in float64 with the small network's values put back."""
    whole = jax.tree.map(lambda leaf: np.array(leaf, np.float64), params)
    for layer, (rows, columns), (kernel, bias) in zip(layers, kept, small, strict=True):
        whole[layer.name]["kernel"][..., rows[:, None], columns[None, :]] = kernel
        whole[layer.name]["bias"][columns] = bias
    return whole


def _relu(x):
    return jnp.where(x > 0, x, 0)  # slope 0 at 0, as the field has it


def _loss(small, x, y):
    for number, (kernel, bias) in enumerate(small):
        if kernel.ndim == 4:
            x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = _relu(x + bias)
            x = x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, x.shape[3]).max((2, 4))
        else:
            x = x.reshape(x.shape[0], -1) @ kernel + bias
            x = _relu(x) if number < len(small) - 1 else x
    target = jax.nn.one_hot(y, x.shape[1], dtype=x.dtype)
    return jnp.mean(jnp.logaddexp(0, x) - target * x)  # sigmoid cross-entropy, mean over batch and classes


def train(params, layers, x, y, lr, widths, shift=0):
    """(whole params, losses): one SGD step on each batch, on the network cut out at that step's density (percent)."""
    losses, whole = [], params
    with jax.enable_x64(True):
        slope = jax.jit(jax.value_and_grad(_loss))
        for batch_x, batch_y, percent in zip(x, y, widths, strict=True):
            kept = kept_channels(layers, percent, shift)
            small = cut(whole, layers, kept)
            value, gradient = slope(small, np.asarray(batch_x, np.float64), np.asarray(batch_y))
            small = [
                tuple(np.asarray(w) - lr * np.asarray(g) for w, g in zip(layer, own, strict=True))
                for layer, own in zip(small, gradient, strict=True)
            ]
            whole = paste(whole, layers, kept, small)
            losses.append(float(value))
    return whole, losses
