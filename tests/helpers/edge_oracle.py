"""Edge pruning written out in float64 NumPy for `tiny.TwoLayers`: Algorithms 1 to 3, Eqs. 5 and 6, loop by loop."""

from __future__ import annotations

import functools
import math

import jax
import numpy as np
from prfl_oracle import LAYERS, masked, mlp_gradient

from prfl_jax.data.device import draw_batches


def local_pruning(w, mask, squares, share):
    """Algorithm 2 of one layer, as facts about it are read: the mask of the next round."""
    w, mask, squares = w.ravel(), mask.ravel(), squares.ravel()
    sizes = sorted(abs(w[mask]))
    threshold = sizes[min(math.floor(share * len(sizes) + 1e-9), len(sizes) - 1)]
    new = mask & (abs(w) >= threshold)
    candidates = sorted(np.flatnonzero(~new), key=lambda k: -squares[k])
    total, count = float(sum(squares[k] for k in candidates)), len(candidates)
    for k in candidates:
        if not squares[k] > total / count:
            break
        new[k] = True
        total, count = total + squares[k], count + 1
    return new


def to_density(w, mask, squares, share, percent):
    """Like `local_pruning`, but weights come back by their squares until the layer holds its density."""
    w, mask, squares = w.ravel(), mask.ravel(), squares.ravel()
    count, held = max((percent * w.size + 50) // 100, 1), int(mask.sum())
    by_size = sorted(np.flatnonzero(mask), key=lambda k: (-abs(w[k]), k))
    kept = by_size[: min(held - math.floor(share * held + 1e-9), count)]
    by_square = sorted(set(range(w.size)) - set(kept), key=lambda k: (-squares[k], k))
    new = np.zeros(w.size, bool)
    new[[*kept, *by_square[: count - len(kept)]]] = True
    return new


def server_mask(votes, least):
    """Eq. 5: enough votes; of a layer in which no weight has enough, those with the most."""
    return votes >= min(least, votes.max())


class EdgeOracle:
    """Runs a config in which all clients take part in each window.

    Args:
      percents: of each window, the clients' densities, where a policy decides these.

    Attributes:
      w: the dense server model. server, own: masks by layer of the server and of each client.
      losses: of each window, by client. retained: of each pruning, weights of the server's and of each client's masks.
      up, down: bytes of each window's uploads by client, and of its one copy down.
    """

    def __init__(self, simulation, initial, percents=None):
        self.sim, self.config, self.percents = simulation, simulation.config, percents
        self.w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), initial)
        full = [np.ones(self.w[layer]["kernel"].shape, bool) for layer in LAYERS]
        self.clients = range(self.config.clients.number)
        self.server, self.own = full, [full for _ in self.clients]
        self.values = [self.w for _ in self.clients]  # each client's own
        self.squares = [[np.zeros(mask.shape) for mask in full] for _ in self.clients]
        self.count, self.initial, self.begins = 0, self.config.pruning.initial_rounds != 0, 0
        self.losses, self.retained, self.up, self.down = [], [], [], []
        self.new_mask = True  # of the server's, not sent yet
        self.data = simulation.device_data()

    def run(self, windows):
        for number in range(1, windows + 1):
            self.window(number)

    def window(self, number):
        pruning = self.config.pruning
        later = number - 1 - self.begins
        prunes = self.initial or (later > 0 and later % pruning.interval == 0)
        self.down.append(self.bytes_of(self.server, self.new_mask))
        self.new_mask = False
        steps = pruning.initial_steps if self.initial else self.config.local.steps
        prune = [self.pruning_of(number, client) if prunes else None for client in self.clients]
        updates = [self.round(client, steps, prune[client]) for client in self.clients]
        self.losses.append([loss for _, loss in updates])
        self.up.append([self.bytes_of(self.own[client], prunes) for client in self.clients])
        # Algorithm 3, lines 1 to 6
        whole = [
            jax.tree.map(np.add, masked(update, self.own[n]), self.rest(self.own[n]))
            for n, (update, _) in enumerate(updates)
        ]
        self.w = jax.tree.map(lambda *models: sum(models) / len(models), *whole)
        self.count += 1
        if prunes:
            self.vote(number)

    def rest(self, masks):
        """What of the server's model the masks leave out; nothing of the biases, which are never pruned."""
        kept = masked(self.w, masks)
        return jax.tree.map(np.subtract, self.w, kept) if masks else kept

    def pruning_of(self, number, client):
        """How a client chooses a layer's mask."""
        share, name = self.config.pruning.share, self.config.submodel.name
        if name == "own_sizes":
            return functools.partial(to_density, share=share, percent=self.percents[number - 1][client])
        if name == "own_shares":
            share = 1 - self.percents[number - 1][client] / 100
        return functools.partial(local_pruning, share=share)

    def round(self, client, steps, prune):
        """Eq. 6, local training, and Algorithm 2."""
        local, pruning, own = self.config.local, self.config.pruning, self.own[client]
        mine = self.values[client]
        joined = {
            layer: {
                "kernel": np.where(self.server[k], self.w[layer]["kernel"], mine[layer]["kernel"]),
                "bias": self.w[layer]["bias"],
            }
            for k, layer in enumerate(LAYERS)
        }
        w, losses = masked(joined, own), []
        draw = functools.partial(
            draw_batches, steps=steps, batch_size=local.batch_size, normalize="unit", augment="none"
        )
        key = (self.sim.initial_keys if self.initial else self.sim.keys).data
        batches = jax.device_get(draw(self.data, key, client, self.count))
        if pruning.gradients == "round":
            self.squares[client] = [np.zeros(mask.shape) for mask in own]
        for x, y in zip(*batches, strict=True):
            value, gradient = mlp_gradient(w, x, y)
            losses.append(value)
            self.squares[client] = [
                total + gradient[layer]["kernel"] ** 2
                for total, layer in zip(self.squares[client], LAYERS, strict=True)
            ]
            w = jax.tree.map(lambda p, g: p - local.lr * g, w, masked(gradient, own))
        if prune:
            found = [prune(w[layer]["kernel"], own[k], self.squares[client][k]) for k, layer in enumerate(LAYERS)]
            self.own[client] = [mask.reshape(old.shape) for mask, old in zip(found, own, strict=True)]
            self.squares[client] = [np.zeros(mask.shape) for mask in own]
        if pruning.recovered == "stale":  # what is not trained keeps its last value
            w = jax.tree.map(lambda new, old, m: np.where(m, new, old), w, joined, self.flags(own))
            self.values[client] = w
        else:
            self.values[client] = masked(w, self.own[client])
        return masked(w, self.own[client]), np.mean(losses)

    def flags(self, masks):
        """Booleans like the model: what masks hold."""
        ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), self.w)
        return masked(ones, masks)

    def vote(self, number):
        """Algorithm 1, lines 5 to 16, or Algorithm 3, line 7."""
        pruning, n = self.config.pruning, len(self.clients)
        votes = [sum(self.own[client][k].astype(int) for client in self.clients) for k in range(len(LAYERS))]
        share = pruning.initial_votes if self.initial else pruning.votes
        least = math.floor(share * n + 1e-9) + 1 if pruning.votes_above else math.ceil(share * n - 1e-9)
        before = self.server
        # both layers of this network are ends; the inner ones of another would take n votes
        self.server = [server_mask(v, least) for v in votes]
        self.new_mask |= any((a != b).any() for a, b in zip(before, self.server, strict=True))
        if self.initial:
            self.own = [self.server for _ in self.clients]
            held = sum(mask.sum() for mask in self.server)
            biases = sum(self.w[layer]["bias"].size for layer in LAYERS)
            share = (held + biases) / (sum(mask.size for mask in self.server) + biases)
            rounds = pruning.initial_rounds or (1 if self.config.submodel.name == "threshold" else 10)
            if share < pruning.initial_density or number >= rounds:
                self.initial, self.begins = False, number
        self.retained.append([sum(int(mask.sum()) for mask in masks) for masks in (self.server, *self.own)])

    def bytes_of(self, masks, with_mask):
        """Values that masks hold and the biases, and the masks in the cheaper of a bitmap and indices of 4 bytes."""
        held, size = sum(int(mask.sum()) for mask in masks), sum(mask.size for mask in masks)
        biases = sum(self.w[layer]["bias"].size for layer in LAYERS)
        each = self.config.model.size_mb * 1e6 / (size + biases) if self.config.model.size_mb else 4.0
        encoded = min(math.ceil(size / 8), 4 * held) if held < size else 0
        return round((held + biases) * each) + encoded * with_mask
