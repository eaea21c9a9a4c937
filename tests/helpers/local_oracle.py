"""Local works and uploads in float64 NumPy for `prfl_oracle.Oracle`: what a client does in a round, sends and keeps."""

from __future__ import annotations

import json

import jax
import numpy as np
import optimizer_oracle
from prfl_oracle import masked, mlp_gradient, sgd


class Sgd:
    """SGD with momentum and the proximal term; a client keeps nothing."""

    def __init__(self, oracle):
        self.oracle, self.local = oracle, oracle.config.local

    def round(self, sent, model, masks, batches, lr):
        """(the update, mean loss, squared gradients of the kernels)."""
        return sgd(model, masks, *batches, lr, momentum=self.local.momentum, prox_mu=self.local.prox_mu)

    def close(self):
        """The end of a window."""


class OwnSteps(Sgd):
    """FedProx: the steps that fit the time of the median client, at least one; mu is 0.01."""

    def round(self, sent, model, masks, batches, lr):
        flop_s, clients = self.oracle.config.clients.flop_s, self.oracle.config.clients.number
        seconds = 1 / np.array([flop_s[client % len(flop_s)] for client in range(clients)])
        middle = np.median(seconds)
        steps = sum(k * seconds[sent.client] <= self.local.steps * middle for k in range(1, self.local.steps + 1))
        x, y = (part[: max(1, steps)] for part in batches)
        return sgd(model, masks, x, y, lr, prox_mu=0.01)


class Scaffold(Sgd):
    """SCAFFOLD, option II: c - c_i is added to each gradient."""

    def __init__(self, oracle):
        super().__init__(oracle)
        zeros = jax.tree.map(np.zeros_like, oracle.w)
        self.own = dict.fromkeys(range(oracle.config.clients.number), zeros)
        self.c, self.changes = [zeros], []

    def round(self, sent, model, masks, batches, lr):
        own, c = self.own[sent.client], self.c[sent.version]
        w, losses = jax.tree.map(np.copy, model), []
        for batch_x, batch_y in zip(*batches, strict=True):
            value, gradient = mlp_gradient(w, batch_x, batch_y)
            w = jax.tree.map(lambda w, g, c, own: w - lr * (g - own + c), w, gradient, c, own)
            w = masked(w, masks)
            losses.append(value)
        new = jax.tree.map(lambda own, c, w0, w: own - c + (w0 - w) / (lr * len(losses)), own, c, model, w)
        change = masked(jax.tree.map(np.subtract, new, own), masks)
        self.own[sent.client] = jax.tree.map(np.add, own, change)
        self.changes.append(change)
        return w, np.mean(losses), [np.zeros(mask.shape) for mask in masks]

    def close(self):
        total = jax.tree.map(lambda *parts: sum(parts) / len(self.own), self.c[0], *self.changes)
        self.c.append(jax.tree.map(np.add, self.c[-1], total))
        self.changes = []


class Kept(Sgd):
    """An optimiser whose moments each client keeps; those of weights that it does not hold in a round stay."""

    def __init__(self, oracle):
        super().__init__(oracle)
        args = json.loads(self.local.optimizer_args)
        if self.local.optimizer == "sgd":
            self.rule = lambda s, g, w, t: optimizer_oracle.momentum(s, g, w, t, self.local.momentum)
        else:
            rule = getattr(optimizer_oracle, self.local.optimizer)
            self.rule = lambda s, g, w, t: rule(s, g, w, t, **args)
        self.states, self.steps = {}, {}

    def round(self, sent, model, masks, batches, lr):
        leaves, treedef = jax.tree.flatten(jax.tree.map(np.copy, model))
        states = self.states.setdefault(sent.client, [{} for _ in leaves])
        flags = [np.ones(leaf.shape, bool) for leaf in leaves]
        flags = jax.tree.leaves(masked(jax.tree.unflatten(treedef, flags), masks))
        before = [{key: np.copy(value) for key, value in state.items()} for state in states]
        losses = []
        for batch_x, batch_y in zip(*batches, strict=True):
            self.steps[sent.client] = t = self.steps.get(sent.client, 0) + 1
            value, gradient = mlp_gradient(jax.tree.unflatten(treedef, leaves), batch_x, batch_y)
            gradients = jax.tree.leaves(masked(gradient, masks))
            leaves = [p + lr * self.rule(s, g, p, t) for s, g, p in zip(states, gradients, leaves, strict=True)]
            leaves = [np.where(flag, p, 0) for p, flag in zip(leaves, flags, strict=True)]
            losses.append(value)
        for state, old, flag in zip(states, before, flags, strict=True):
            for key in state:
                state[key] = np.where(flag, state[key], old.get(key, 0.0))
        return jax.tree.unflatten(treedef, leaves), np.mean(losses), [np.zeros(mask.shape) for mask in masks]


def work_of(oracle):
    """The work that the oracle's config names."""
    local = oracle.config.local
    if local.optimizer_state == "kept":
        return Kept(oracle)
    return {"scaffold": Scaffold, "proximal_own_steps": OwnSteps}.get(local.name, Sgd)(oracle)


class Whole:
    """A client sends its whole update."""

    def sent_up(self, client, model, update):
        return update


class Largest(Whole):
    """FlexCom, of full models: the largest values of the update with what was not sent before, by error feedback.

    Attributes:
      values: of each client, how many it sends.
      feedback: False: what is not sent is lost.
    """

    feedback = True

    def __init__(self, oracle):
        config, self.unsent = oracle.config, {}
        total = sum(leaf.size for leaf in jax.tree.leaves(oracle.w))
        each = config.model.size_mb * 1e6 / total if config.model.size_mb else 4
        speeds = [config.clients.up_mb_s[k % len(config.clients.up_mb_s)] for k in range(config.clients.number)]
        seconds = np.median([round(each * total) / speed for speed in speeds])
        self.values = [most_values(total, each, seconds * speed) for speed in speeds]

    def sent_up(self, client, model, update):
        change = jax.tree.map(np.subtract, update, model)
        if self.feedback and client in self.unsent:
            change = jax.tree.map(np.add, change, self.unsent[client])
        leaves, treedef = jax.tree.flatten(change)
        sent = keep_largest([leaf.ravel() for leaf in leaves], self.values[client])
        sent = jax.tree.unflatten(treedef, [own.reshape(leaf.shape) for own, leaf in zip(sent, leaves, strict=True)])
        self.unsent[client] = jax.tree.map(np.subtract, change, sent)
        return jax.tree.map(np.add, model, sent)


def most_values(total, each, budget, state=0):
    """How many of `total` values, of so many bytes each, fit the budget with their positions; at least 1."""
    whole, index_bits = round((total + state) * each), int(np.ceil(np.log2(max(total, 2))))
    if whole <= budget * (1 + 1e-9):
        return total

    def sent(values):
        return round((values + state) * each) + min(np.ceil(values * index_bits / 8), np.ceil(total / 8))

    cheaper = [values for values in range(1, total + 1) if sent(values) < whole]
    return max((values for values in cheaper if sent(values) <= budget * (1 + 1e-9)), default=1 if cheaper else total)


def keep_largest(leaves, count):
    """Flat leaves with 0 for all but the `count` largest of them together; ties by position, leaf after leaf."""
    flat = np.concatenate(leaves)
    order = sorted(range(flat.size), key=lambda k: (-abs(flat[k]), k))
    out = np.zeros_like(flat)
    out[order[:count]] = flat[order[:count]]
    return np.split(out, np.cumsum([leaf.size for leaf in leaves])[:-1])


def upload_of(oracle):
    """What the oracle's config names as `transport.upload`."""
    return Largest(oracle) if oracle.config.transport.upload == "topk" else Whole()
