"""Training steps of small networks written out in NumPy, float64: batch norm between dense layers, stacked LSTMs."""

from __future__ import annotations

import numpy as np

EPSILON = 1e-5  # of batch norm, in Flax and in PyTorch


def softmax_gradient(logits, labels):
    """Gradient of the mean softmax cross-entropy over all rows of `[N, classes]`."""
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    p[np.arange(len(labels)), labels] -= 1
    return p / len(labels)


class BatchNormNet:
    """dense0, batch norm, ReLU, dense1; SGD without momentum.

    Attributes:
      w: `[kernel0, bias0, scale, bias, kernel1, bias1]`.
      mean, var: running statistics; `var` is the biased one, as in Flax.
      momentum: what a running statistic keeps at each step.
    """

    def __init__(self, w, momentum):
        self.w = [np.asarray(one, np.float64) for one in w]
        self.momentum = momentum
        self.mean, self.var = np.zeros(len(self.w[2])), np.ones(len(self.w[2]))

    def statistics(self, x):
        """Mean and variance of a batch in front of the norm."""
        z = x @ self.w[0] + self.w[1]
        mean = z.sum(0) / len(z)
        return mean, ((z - mean) ** 2).sum(0) / len(z)

    def logits(self, x):
        """In evaluation."""
        k0, b0, scale, bias, k1, b1 = self.w
        h = (x @ k0 + b0 - self.mean) / np.sqrt(self.var + EPSILON) * scale + bias
        return np.maximum(h, 0) @ k1 + b1

    def step(self, x, labels, lr):
        k0, b0, scale, bias, k1, b1 = self.w
        z = x @ k0 + b0
        mean, var = self.statistics(x)
        root = np.sqrt(var + EPSILON)
        unit = (z - mean) / root
        h = unit * scale + bias
        a = np.maximum(h, 0)
        dout = softmax_gradient(a @ k1 + b1, labels)
        dh = dout @ k1.T * (h > 0)
        dunit = dh * scale
        n = len(x)
        # through the mean and the variance of the batch as well
        dz = (dunit - dunit.sum(0) / n - unit * (dunit * unit).sum(0) / n) / root
        gradients = [x.T @ dz, dz.sum(0), (dh * unit).sum(0), dh.sum(0), a.T @ dout, dout.sum(0)]
        self.w = [w - lr * g for w, g in zip(self.w, gradients, strict=True)]
        self.mean = self.momentum * self.mean + (1 - self.momentum) * mean
        self.var = self.momentum * self.var + (1 - self.momentum) * var
