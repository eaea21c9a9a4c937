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


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class StackedLSTM:
    """Embedding, LSTM layers and an output at each step; SGD on the mean loss of all steps.

    Attributes:
      embedding: `[tokens, E]`.
      layers: `[kernel [F, 4 H], recurrent kernel [H, 4 H], bias [4 H]]` of each; gates input, forget, cell, output.
      output: `[kernel [H, classes], bias]`.
    """

    def __init__(self, embedding, layers, output):
        self.embedding = np.asarray(embedding, np.float64)
        self.layers = [[np.asarray(w, np.float64) for w in layer] for layer in layers]
        self.output = [np.asarray(w, np.float64) for w in output]

    def weights(self):
        """All arrays in one list."""
        return [self.embedding, *(w for layer in self.layers for w in layer), *self.output]

    def run(self, layer, x):
        """h at every step of `x` `[B, T, F]`, and what each step computed."""
        kernel, recurrent, bias = self.layers[layer]
        h = c = np.zeros((len(x), len(recurrent)))
        outputs, steps = [], []
        for t in range(x.shape[1]):
            gates = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
            i, f, g, o = sigmoid(gates[0]), sigmoid(gates[1]), np.tanh(gates[2]), sigmoid(gates[3])
            new_c = f * c + i * g
            new_h = o * np.tanh(new_c)
            steps.append((x[:, t], h, c, i, f, g, o, new_c))
            h, c = new_h, new_c
            outputs.append(h)
        return np.stack(outputs, 1), steps

    def forward(self, x):
        """(logits `[B, T, classes]`, h of the last layer, steps of each layer)."""
        h, steps = self.embedding[x], []
        for layer in range(len(self.layers)):
            h, one = self.run(layer, h)
            steps.append(one)
        return h @ self.output[0] + self.output[1], h, steps

    def gradients(self, x, targets):
        """Backpropagation through time, gate by gate; in the order of `weights`."""
        logits, h, steps = self.forward(x)
        batch, length, classes = logits.shape
        dlogits = softmax_gradient(logits.reshape(-1, classes), targets.reshape(-1)).reshape(logits.shape)
        last = h.shape[-1]
        found = [h.reshape(-1, last).T @ dlogits.reshape(-1, classes), dlogits.sum((0, 1))]
        dh_all = dlogits @ self.output[0].T
        for layer in reversed(range(len(self.layers))):
            kernel, recurrent, bias = self.layers[layer]
            dkernel, drecurrent, dbias = np.zeros_like(kernel), np.zeros_like(recurrent), np.zeros_like(bias)
            dx_all = np.zeros((batch, length, len(kernel)))
            dh, dc = np.zeros((batch, len(recurrent))), np.zeros((batch, len(recurrent)))
            for t in reversed(range(length)):
                x_t, h, c, i, f, g, o, new_c = steps[layer][t]
                dh = dh + dh_all[:, t]
                squashed = np.tanh(new_c)
                dc = dc + dh * o * (1 - squashed**2)
                di, df, dg, do = dc * g, dc * c, dc * i, dh * squashed
                dgates = np.concatenate([di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)], axis=1)
                dkernel += x_t.T @ dgates
                drecurrent += h.T @ dgates
                dbias += dgates.sum(0)
                dx_all[:, t] = dgates @ kernel.T
                dh, dc = dgates @ recurrent.T, dc * f
            found = [dkernel, drecurrent, dbias, *found]
            dh_all = dx_all
        dembedding = np.zeros_like(self.embedding)
        np.add.at(dembedding, x, dh_all)
        return [dembedding, *found]

    def step(self, x, targets, lr):
        for w, g in zip(self.weights(), self.gradients(x, targets), strict=True):
            w -= lr * g
