"""One mask for all clients, written out in float64 NumPy for `tiny.TwoLayers`: PruneFL, SNIP, iterative pruning."""

from __future__ import annotations

import functools

import jax
import numpy as np
from edge_oracle import EdgeOracle
from prfl_oracle import LAYERS, masked, mlp_forward, mlp_gradient

from prfl_jax.data.device import draw_batches


def smallest_away(w, mask, share):
    """A layer's mask without so large a share of its smallest held weights; at least one stays."""
    held = sorted(np.flatnonzero(mask), key=lambda k: abs(w.flat[k]))
    gone = min(int(np.float32(share) * np.float32(len(held))), len(held) - 1)
    new = mask.copy()
    new.flat[held[:gone]] = False
    return new


class SharedOracle(EdgeOracle):
    """As `EdgeOracle`, with the server's mask alone; `held` has the weights of each of its masks, by the window."""

    def __init__(self, simulation, initial):
        super().__init__(simulation, initial)
        self.new_mask, self.held = False, {}
        self.rule = getattr(self, simulation.config.submodel.name)
        self.gradients = jax.tree.map(np.zeros_like, self.w)  # squares of sums

    def run(self, windows):
        if self.config.submodel.name in ("prunefl", "conventional") and self.config.pruning.initial_rounds != 0:
            self.first_stage()
        super().run(windows)

    def first_stage(self):
        """PruneFL's on client 0: over and over the same ten batches, until the number of weights has settled."""
        config, pruning = self.config, self.config.pruning
        x, y = jax.device_get(
            draw_batches(self.data, self.sim.initial_keys.data, 0, 0, 10, config.local.batch_size, "unit", "none")
        )
        begun, sizes, biases = None, [], sum(self.w[layer]["bias"].size for layer in LAYERS)
        self.first_s = 0.0
        for number in range(1, pruning.initial_rounds + 1):
            if begun is None and number % 10 == 1:
                right = [
                    mlp_forward(masked(self.w, self.server), a)[1].argmax(1) == b for a, b in zip(x, y, strict=True)
                ]
                begun = number if np.mean(right) >= 0.15 else None
            self.first_s += 10 * self.step_s(0)
            stale = self.rest(self.server)
            w = masked(self.w, self.server)
            for a, b in zip(x, y, strict=True):
                gradient = mlp_gradient(w, a, b)[1]
                self.gradients = jax.tree.map(lambda so_far, g: so_far + g**2, self.gradients, gradient)
                w = jax.tree.map(lambda p, g: p - config.local.lr * g, w, masked(gradient, self.server))
            self.w = jax.tree.map(np.add, w, stale)
            if begun is not None and (number - begun) % pruning.interval == 0:
                self.server = self.pruned(pruning.share)
                sizes.append(sum(int(mask.sum()) for mask in self.server) + biases)
                steady = [abs(b / a - 1) <= 0.1 for a, b in zip(sizes, sizes[1:], strict=False)]
                if len(steady) >= 5 and all(steady[-5:]):
                    break
        self.first_rounds, self.new_mask = number, bool(sizes)
        self.held[0] = sum(int(mask.sum()) for mask in self.server)

    def step_s(self, client):
        """Seconds of a step under the server's mask: as measured, and three passes of two operations a weight."""
        clients, batch = self.config.clients, self.config.local.batch_size
        held = sum(int(mask.sum()) for mask in self.server)
        return clients.step_s[client] + clients.weight_s[0] * held + 6 * batch * held / clients.flop_s[client]

    def conventional(self, number, before):
        return None

    def window(self, number):
        self.down.append(self.bytes_of(self.server, self.new_mask))
        self.new_mask = False
        before, mask = self.w, self.server
        updates = [self.round(client) for client in self.clients]
        self.losses.append([loss for _, loss in updates])
        self.up.append([self.bytes_of(mask, False) + self.beside(number)] * len(self.clients))
        whole = [jax.tree.map(np.add, update, self.rest(mask)) for update, _ in updates]
        self.w = jax.tree.map(lambda *models: sum(models) / len(models), *whole)
        self.count += 1
        found = self.rule(number, before)
        if found is not None:
            self.held[number] = sum(int(one.sum()) for one in found)
            self.new_mask = any((a != b).any() for a, b in zip(found, mask, strict=True))
            self.server = found

    def round(self, client):
        """Local training under the server's mask."""
        local = self.config.local
        w, losses, total = masked(self.w, self.server), [], jax.tree.map(np.zeros_like, self.w)
        draw = functools.partial(
            draw_batches, steps=local.steps, batch_size=local.batch_size, normalize="unit", augment="none"
        )
        for x, y in zip(*jax.device_get(draw(self.data, self.sim.keys.data, client, self.count)), strict=True):
            value, gradient = mlp_gradient(w, x, y)
            losses.append(value)
            total = jax.tree.map(np.add, total, gradient)
            w = jax.tree.map(lambda p, g: p - local.lr * g, w, masked(gradient, self.server))
        self.gradients = jax.tree.map(lambda all_of_them, g: all_of_them + g**2, self.gradients, total)
        return w, np.mean(losses)

    def beside(self, number):
        """Bytes that PruneFL's clients upload beside the model, a number for each value, before the mask changes."""
        changes = self.config.submodel.name == "prunefl" and self.adapts(number)
        return self.bytes_of([np.ones_like(mask) for mask in self.server], False) * changes

    def prunefl(self, number, before):
        """Small weights go, then one after the other comes back, by squared gradient over time."""
        pruning = self.config.pruning
        if not self.adapts(number):
            return None
        return self.pruned(pruning.share * 0.5 ** ((number - 1) / 10_000))

    def adapts(self, number):
        """Whether PruneFL's mask changes after a window: its rounds 50, 100, ... are numbered from 0."""
        return number > 1 and (number - 1) % self.config.pruning.interval == 0

    def pruned(self, removal):
        """PruneFL's step, after which squared gradients are forgotten."""
        new = [smallest_away(w, mask, removal) for w, mask in zip(self.kernels(), self.server, strict=True)]
        squares, layer_s, constant_s = self.kernels(self.gradients), *self.round_time()
        total = sum(self.gradients[layer]["bias"].sum() for layer in LAYERS)
        total += sum(g[mask].sum() for g, mask in zip(squares, new, strict=True))
        seconds = constant_s + sum(t * mask.sum() for t, mask in zip(layer_s, new, strict=True))
        away = [(squares[k].flat[i] / layer_s[k], k, i) for k, mask in enumerate(new) for i in np.flatnonzero(~mask)]
        for quotient, k, i in sorted(away, reverse=True):
            if not quotient > total / seconds:
                break
            new[k].flat[i] = True
            total, seconds = total + squares[k].flat[i], seconds + layer_s[k]
        self.gradients = jax.tree.map(np.zeros_like, self.gradients)
        return new

    def round_time(self):
        """(s that a held weight of each layer adds to the slowest client's round, s of a round without any)."""
        clients, local = self.config.clients, self.config.local
        sizes, biases = [w.size for w in self.kernels()], sum(self.w[layer]["bias"].size for layer in LAYERS)
        each = self.config.model.size_mb / (sum(sizes) + biases)  # MB of a value
        rounds = []
        for n in self.clients:
            value_s = each / clients.up_mb_s[n] + each / clients.down_mb_s[n]
            step_s = clients.step_s[n] if clients.step_s else 0.0
            weight_s = list(clients.weight_s or (0.0,)) * (1 if len(clients.weight_s) == 2 else 2)
            flop_s = clients.flop_s[n] if clients.flop_s else np.inf
            # three passes, of two operations for each weight and sample
            own = [local.steps * (t + 6 * local.batch_size / flop_s) + value_s for t in weight_s]
            constant = local.steps * step_s + biases * value_s
            rounds.append((constant + np.dot(own, sizes), own, constant))
        return max(rounds)[1:]

    def kernels(self, w=None):
        w = self.w if w is None else w
        return [w[layer]["kernel"] for layer in LAYERS]

    def snip(self, number, before):
        """The largest abs(w x change) of both layers together, and the best of each."""
        if number != 1:
            return None
        scores = [abs(a * (b - a)).ravel() for a, b in zip(self.kernels(before), self.kernels(), strict=True)]
        for score in scores:
            score[score.argmax()] = np.inf
        together = np.concatenate(scores)
        best = sorted(range(len(together)), key=lambda k: -together[k])
        held = np.zeros(len(together), bool)
        held[best[: round(self.config.pruning.density * len(together))]] = True
        parts = np.split(held, [scores[0].size])
        return [part.reshape(mask.shape) for part, mask in zip(parts, self.server, strict=True)]

    def iterative(self, number, before):
        """In equal steps in the first half of the windows."""
        pruning, every = self.config.pruning, self.config.rounds // (2 * self.config.pruning.times)
        if not (number > 1 and (number - 1) % every == 0 and (number - 1) // every <= pruning.times):
            return None
        rate = 1 - pruning.density ** (1 / pruning.times)
        return [smallest_away(w, mask, rate) for w, mask in zip(self.kernels(), self.server, strict=True)]
