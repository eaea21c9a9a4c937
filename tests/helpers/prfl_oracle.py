"""PR-FL and its rivals written out in float64 NumPy for `tiny.TwoLayers`, to hold the engine against.

Models and masks of clients live in dicts, one entry a dispatch. From the package come
only the clock's windows, the order of batches and the density rule, which have tests of
their own, and the levels of each pruning, which `check_levels` holds against the scores
found here (a rounding error may swap two weights that are all but equally important).
"""

from __future__ import annotations

import functools

import jax
import numpy as np
import tiny
from server_oracle import Server

from prfl_jax.aggregate import aggregation_in_force
from prfl_jax.data.device import draw_batches
from prfl_jax.density import Evidence, make_density
from prfl_jax.strategies.table import staleness_a

LAYERS = ("Dense_0", "Dense_1")


def mlp_forward(w, x):
    """(hidden units before the relu, logits) of `tiny.TwoLayers` for images `[B, ...]`."""
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    before = x @ w["Dense_0"]["kernel"] + w["Dense_0"]["bias"]
    return before, np.maximum(before, 0) @ w["Dense_1"]["kernel"] + w["Dense_1"]["bias"]


def mlp_gradient(w, x, y, loss="sigmoid"):
    """(loss, gradient) of the mean loss of a batch, by hand."""
    before, logits = mlp_forward(w, x)
    hidden = np.maximum(before, 0)
    target = np.eye(logits.shape[1])[np.asarray(y)]
    if loss == "sigmoid":  # mean over batch and classes
        value = np.mean(np.logaddexp(0, logits) - target * logits)
        slope = (1 / (1 + np.exp(-logits)) - target) / logits.size
    else:
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        value = -np.mean((target * log_p).sum(1))
        slope = (np.exp(log_p) - target) / len(logits)
    back = (slope @ w["Dense_1"]["kernel"].T) * (before > 0)
    flat = np.asarray(x, np.float64).reshape(len(hidden), -1)
    return value, {
        "Dense_0": {"kernel": flat.T @ back, "bias": back.sum(0)},
        "Dense_1": {"kernel": hidden.T @ slope, "bias": slope.sum(0)},
    }


def masked(tree, masks):
    """`tree` with its kernels under `masks`, one a layer; () for the full model."""
    if not masks:
        return tree
    pairs = zip(LAYERS, masks, strict=True)
    return {layer: {**tree[layer], "kernel": np.where(mask, tree[layer]["kernel"], 0)} for layer, mask in pairs}


def sgd(params, masks, x, y, lr, loss="sigmoid", momentum=0.0, prox_mu=0.0):
    """One local round: (params, mean loss, sum over the steps of the kernels' squared gradients)."""
    w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    velocity = jax.tree.map(np.zeros_like, w)
    losses, squares = [], [np.zeros_like(w[layer]["kernel"]) for layer in LAYERS]
    for batch_x, batch_y in zip(x, y, strict=True):
        value, gradient = mlp_gradient(w, batch_x, batch_y, loss)
        gradient = masked(gradient, masks)  # what is not in the sub-model is not trained
        gradient = jax.tree.map(lambda g, now, sent: g + prox_mu * (now - sent), gradient, w, params)
        velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, gradient)
        w = jax.tree.map(lambda p, v: p - lr * v, w, velocity)
        losses.append(value)
        squares = [s + gradient[layer]["kernel"] ** 2 for s, layer in zip(squares, LAYERS, strict=True)]
    return w, np.mean(losses), squares


def accuracy(w, x, y):
    return np.mean(mlp_forward(w, np.asarray(x, np.float64) / 255)[1].argmax(1) == y)


def check_levels(levels, scores, size, density_pct):
    """Each sub-model has its count and holds nothing less important than what it leaves out."""
    roots = [np.sqrt(score) for score in scores]  # |sum of gradients|: its rounding error has one size everywhere
    slack = 1e-6
    base = size.base_counts()
    for percent in density_pct:
        inside = [level <= percent for level in levels]
        assert sum(int(mask.sum()) for mask in inside) == size.count(percent)
        left_out = [root[~mask].max(initial=0) for root, mask in zip(roots, inside, strict=True)]
        for k, (root, mask) in enumerate(zip(roots, inside, strict=True)):
            assert mask.sum() >= base[k]
            worst = left_out[k] if mask.sum() == base[k] else max(left_out)
            assert root[mask].min() >= worst - slack


def run_beside(experiment):
    """(the run, the oracle's, levels of each pruning): the oracle is given those levels, and checks them."""
    simulation = experiment.simulation
    initial = jax.device_get(simulation.init_state(simulation.init_key).params)
    prunings, prune = [], simulation.prune

    def recording(state, density_pct):
        new, costs = prune(state, density_pct)
        prunings.append(None if new is state else jax.device_get(new.levels))
        return new, costs

    simulation.prune = recording
    ran = tiny.run_experiment(experiment)
    oracle = Oracle(simulation, initial, prunings)
    oracle.run(experiment.config.rounds)
    return ran, oracle, prunings


class Oracle:
    """Runs a simulation's config from its initial model, window after window.

    Attributes:
      w: the server model now. slots: client -> (update, masks, version).
      undecided: per window, of how many weights nobody holds the value; only with an optimiser at the server.
      losses: per window, the mean training loss of each arrival, in order.
      client_accuracy: of each interval's end, `[M]`.
    """

    def __init__(self, simulation, initial, prunings):
        self.sim, self.config = simulation, simulation.config
        self.w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), initial)
        self.prunings = iter(prunings)  # the levels the run under test came to, None where it did not prune
        self.nested = self.config.submodel.name == "nested"
        self.policy = make_density(self.config.density, self.config.clients.number)
        self.clock = simulation.new_planner().clock
        self.history, self.slots, self.flying, self.trained = [self.w], {}, {}, {}
        self.round_s = {}
        self.total = [np.zeros_like(self.w[layer]["kernel"]) for layer in LAYERS]
        self.held = [np.zeros(t.shape, int) for t in self.total]
        self.levels = [np.ones(t.shape, int) for t in self.total]  # before the first pruning all hold all
        self.losses, self.client_accuracy, self.staleness = [], [], []
        self.aggregation = aggregation_in_force(
            self.config.aggregation, staleness_a(self.config.strategy, self.config.aggregation.staleness)
        )
        self.server, eta, self.undecided = None, self.aggregation.server_lr, []
        if self.aggregation.optimizer != "none":  # whose rate is eta: the aggregate is that of rate 1
            self.server = Server(self.aggregation.optimizer, eta, self.aggregation.optimizer_args)
            self.aggregation.server_lr = 1.0
        local = self.config.local
        batches = dict(steps=local.steps, batch_size=local.batch_size, normalize="unit", augment="none")
        self.batches = jax.jit(functools.partial(draw_batches, **batches))
        self.data = simulation.device_data()
        from local_oracle import upload_of, work_of  # which use the functions above

        self.work, self.upload = work_of(self), upload_of(self)

    def run(self, windows):
        for number in range(1, windows + 1):
            self.window(number)
            if number % self.config.density.interval == 0 and self.config.density.name != "full":
                self.interval()

    def window(self, number):
        window = self.clock.next_window()
        density_pct = self.policy.density_pct
        for sent in window.dispatches:
            masks = tuple(level <= density_pct[sent.client] for level in self.levels) if self.nested else ()
            model = masked(self.history[sent.version], masks)
            self.flying[sent.client, sent.index] = model, masks, sent, int(density_pct[sent.client])
        losses, density_pct, came, masks_came = [], [], [], []
        for arrival in window.arrivals:
            model, masks, sent, percent = self.flying.pop((arrival.client, arrival.index))
            update, loss = self.train(sent, model, masks)
            self.slots[arrival.client] = update, masks, sent.version, number
            self.round_s.setdefault(arrival.client, []).append(arrival.arrived_s - arrival.dispatched_s)
            came.append((arrival.client, number - 1 - sent.version, model, update))
            masks_came.append(masks)
            losses.append(loss)
            density_pct.append(percent)
        self.policy.observe(window.arrivals, density_pct)
        self.losses.append(losses)
        self.staleness.append([number - 1 - arrival.version for arrival in window.arrivals])
        one_by_one = self.config.aggregation.name in ("mixing", "fedfix", "fedbuff")
        if self.config.aggregation.name in ("r2sp", "bsp"):
            new = self.mean_of_whole_models(came, masks_came, number)
        else:
            new = self.add(came) if one_by_one else self.aggregate(number)
        self.w = new if self.server is None else self.server.step(self.w, new, self.decided(number, masks_came))
        self.history.append(self.w)
        self.work.close()

    def train(self, sent, model, masks):
        local, client = self.config.local, sent.client
        lr = local.lr * local.lr_decay ** (sent.time_s / self.config.window.dt_s / local.lr_decay_rounds)
        count = self.trained.get(client, 0)
        self.trained[client] = count + 1
        batches = jax.device_get(self.batches(self.data, self.sim.keys.data, client, count))
        update, loss, squares = self.work.round(sent, model, masks, batches, lr)
        update = self.upload.sent_up(client, model, update)
        for k, mask in enumerate(masks):
            change = model[LAYERS[k]]["kernel"] - update[LAYERS[k]]["kernel"]
            self.total[k] += squares[k] if self.config.submodel.importance == "client_sq_grad" else (change / lr) ** 2
            self.held[k] += mask
        return update, loss

    def weights(self, number):
        """{client: weight} of the slots that count, not normalised (samples are the same for all)."""
        name = self.config.aggregation.name
        slots = {c: slot for c, slot in self.slots.items() if name.startswith("buffered") or slot[3] == number}
        if name in ("fedavg", "counted"):
            return dict.fromkeys(slots, 1.0)
        return {client: (number - slot[2]) ** -0.6 for client, slot in slots.items()}  # (tau + 1)^-0.6

    def add(self, came):
        """Arrivals of a window that are taken one after another, or whose changes are added."""
        name, lr, w = self.config.aggregation.name, self.aggregation.server_lr, self.w
        for client, tau, model, update in came:
            s = (tau + 1) ** -(0.5 if self.config.strategy == "fedasync" else 0.6)
            if name == "mixing":  # FedAsync: alpha is 0.6
                w = jax.tree.map(lambda old, new, a=0.6 * s: (1 - a) * old + a * new, w, update)
                continue
            windows = np.ceil(np.mean(self.round_s[client]) / self.config.window.dt_s)
            if self.config.window.close == "each_arrival":
                known = [np.mean(own) for own in self.round_s.values()]
                windows = sum(1 / t for t in known) * np.mean(self.round_s[client])
            share = s / len(came) if name == "fedbuff" else windows / self.config.clients.number
            w = jax.tree.map(lambda old, new, sent, c=lr * share: old + c * (new - sent), w, update, model)
        return w

    def mean_of_whole_models(self, came, masks_came, number):
        """FedMP: the mean of recovered models, plus (R2SP) the residual of the model at each client's dispatch."""
        if not came:
            return self.w
        whole, eta = [], self.aggregation.server_lr
        for (_, tau, _, update), masks in zip(came, masks_came, strict=True):
            at_dispatch = self.history[number - 1 - tau]
            residual = jax.tree.map(np.subtract, at_dispatch, masked(at_dispatch, masks))
            if self.config.aggregation.name == "bsp":
                residual = jax.tree.map(np.zeros_like, residual)
            whole.append(jax.tree.map(np.add, update, residual))
        return jax.tree.map(lambda w, *models: (1 - eta) * w + eta * sum(models) / len(models), self.w, *whole)

    def aggregate(self, number):
        """Algorithm 2."""
        weights = self.weights(number)
        if not weights:
            return self.w
        total, name = sum(weights.values()), self.config.aggregation.name
        eta = self.aggregation.server_lr
        if name == "unbuffered_maskfedavg":  # nobuff: mixed in by the arrivals' share
            eta *= total / sum((number - slot[2]) ** -0.6 for slot in self.slots.values())
        new = {}
        for k, layer in enumerate(LAYERS):
            new[layer] = {}
            for leaf, old in self.w[layer].items():
                w_acc, mask_acc = np.zeros_like(old), np.zeros_like(old)
                for client, s in weights.items():
                    update, masks, *_ = self.slots[client]
                    plain = name.endswith("fedavg") and "mask" not in name  # what is pruned counts as 0
                    mask = masks[k] if masks and leaf == "kernel" and not plain else np.ones(old.shape)
                    w_acc += s / total * update[layer][leaf] * mask
                    mask_acc += s / total * mask
                held = mask_acc > 0
                local = np.where(held, w_acc / np.where(held, mask_acc, 1), old)
                new[layer][leaf] = (1 - eta) * old + eta * local
        return new

    def decided(self, number, came):
        """Booleans like the model: weights about which the close of a window decides.

        Args:
          came: masks of the window's arrivals.
        """
        name = self.config.aggregation.name
        if name not in ("mixing", "fedfix", "fedbuff", "r2sp", "bsp"):
            came = [self.slots[client][1] for client in self.weights(number)]
        # what a client does not hold counts, as 0 or as it was
        plain = name in ("mixing", "fedavg", "buffered_fedavg", "r2sp", "bsp")
        out = {}
        for k, layer in enumerate(LAYERS):
            out[layer] = {leaf: np.full(old.shape, bool(came)) for leaf, old in self.w[layer].items()}
            if came and came[0] and not plain:
                out[layer]["kernel"] = np.any([masks[k] for masks in came], axis=0)
        self.undecided.append(sum(int((~leaf).sum()) for leaf in jax.tree.leaves(out)))
        return out

    def buffer_average(self, number):
        """FedAvg(B) after that window, pruned weights counting as 0."""
        weights = self.weights(number)
        total = sum(weights.values())
        models = [jax.tree.map(lambda leaf, s=s: s / total * leaf, self.slots[c][0]) for c, s in weights.items()]
        return jax.tree.map(lambda *leaves: sum(leaves), *models)

    def scores(self):
        kind = self.config.submodel.importance
        size = [np.abs(self.w[layer]["kernel"]) for layer in LAYERS]
        if kind == "weight":
            return size
        mean = [t / np.maximum(h, 1) for t, h in zip(self.total, self.held, strict=True)]
        return [w * m for w, m in zip(size, mean, strict=True)] if kind == "product" else mean

    def interval(self):
        """Early stopping of clients, densities, pruning."""
        held_out = self.sim.split.holdout
        x, y = self.sim.dataset.x_train[held_out], self.sim.dataset.y_train[held_out]
        own = np.full(self.config.clients.number, np.nan)
        for client, slot in self.slots.items():
            own[client] = accuracy(slot[0], x, y)
        self.client_accuracy.append(own)
        decision = self.policy.decide(Evidence(own))
        levels = next(self.prunings)
        if levels is not None:
            check_levels(levels, self.scores(), self.sim.method.size, sorted(set(decision.density_pct.tolist())))
            self.levels = levels
        self.clock.set_costs(self.sim.costs(decision.density_pct))
