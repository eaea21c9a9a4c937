"""Twenty SGD steps of the built-in networks beside PyTorch, from the same weights; skipped where it is not installed.

PyTorch computes in float64, so that the difference is the rounding of float32 on our side alone. What the two libraries
do differently is taken out: PyTorch's LSTM has two biases, whose sum moves twice as far, so the input's one stays at 0;
its GRU has a second bias at the reset and update gates, which stays at 0; its running variance is the unbiased one; its
momentum of a tenth is Flax's of nine tenths.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from prfl_jax.engine.method import resolve
from prfl_jax.local import LocalSettings
from prfl_jax.local.sgd import make_local_round
from prfl_jax.models.build import flat_paths
from prfl_jax.tasks import FEATURES, SEQUENCES, SampleSpec

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed; it is no dependency, pip install 'prfl_jax[bench]' adds it"
)
nn, functional = torch.nn, torch.nn.functional
pytestmark = pytest.mark.slow

STEPS, BATCH, CLASSES = 20, 8, 5
TOLERANCE = 1e-5  # of the largest value of an array
MOMENTUM = 0.9  # what a running statistic keeps at each step

# How the axes of PyTorch's array are to be permuted to become Flax's.
KERNEL, DENSE, SAME = (2, 3, 1, 0), (1, 0), (0,)


def output_pairs(net):
    return {"output/kernel": (net.output.weight, DENSE), "output/bias": (net.output.bias, SAME)}


class Recurrent(nn.Module):
    """An embedding where there are tokens, stacked LSTM or GRU layers, the output at each step or at the last one."""

    def __init__(self, kind, inputs, units, layers, tokens=0):
        super().__init__()
        self.embedding = nn.Embedding(tokens, inputs) if tokens else None
        self.rnn = getattr(nn, kind)(inputs, units, layers, batch_first=True)
        self.output = nn.Linear(units, tokens or CLASSES)
        self.kind, self.units, self.layers = kind, units, layers
        for layer in range(layers):
            at_input, at_output = (getattr(self.rnn, f"bias_{end}_l{layer}") for end in ("ih", "hh"))
            if kind == "LSTM":
                at_input.requires_grad = False
                at_input.data.zero_()
            else:
                at_output.data.zero_()
                at_output.register_hook(lambda g: torch.cat([torch.zeros_like(g[: 2 * units]), g[2 * units :]]))

    def forward(self, x, lengths):
        h, _ = self.rnn(x if self.embedding is None else self.embedding(x))
        return self.output(h if self.embedding is not None else h[torch.arange(len(h)), lengths - 1])

    def pairs(self):
        found = output_pairs(self)
        if self.embedding is not None:
            found["embedding/embedding"] = (self.embedding.weight, (0, 1))
        for layer in range(self.layers):
            name, part = f"{self.kind.lower()}{layer}", lambda key, k=layer: getattr(self.rnn, f"{key}_l{k}")
            found[f"{name}/kernel"] = (part("weight_ih"), DENSE)
            found[f"{name}/recurrent_kernel"] = (part("weight_hh"), DENSE)
            if self.kind == "LSTM":
                found[f"{name}/bias"] = (part("bias_hh"), SAME)
            else:
                found[f"{name}/bias"] = (part("bias_ih"), SAME)
                found[f"{name}/recurrent_bias"] = (part("bias_hh")[2 * self.units :], SAME)
        return found


class Conv1D(nn.Module):
    """Three convolutions over the steps, steps that are padding set to 0, the mean over the others."""

    def __init__(self, shapes):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv1d(c, f, steps) for _, steps, c, f in shapes])
        self.output = nn.Linear(shapes[-1][-1], CLASSES)

    def forward(self, x, lengths):
        h, there = x.transpose(1, 2), (torch.arange(x.shape[1]) < lengths[:, None])[:, None]
        for conv in self.convs:
            size = conv.kernel_size[0]
            h = torch.relu(conv(functional.pad(h, ((size - 1) // 2, size // 2)))) * there
        return self.output(h.sum(2) / lengths[:, None])

    def pairs(self):
        found = output_pairs(self)
        for number, conv in enumerate(self.convs):
            found[f"conv{number}/kernel"] = (conv.weight[:, :, None], KERNEL)
            found[f"conv{number}/bias"] = (conv.bias, SAME)
        return found


class ResNet18(nn.Module):
    """Layers by the names that Flax's have; group norm in two groups, or batch norm."""

    def __init__(self, first, norm):
        super().__init__()
        self.layers, self.seen = nn.ModuleDict(), {}
        norms = {"batch": nn.BatchNorm2d, "group": lambda size: nn.GroupNorm(2, size)}[norm]

        def add(conv, bn, before, size, kernel, stride=1):
            self.layers[conv] = nn.Conv2d(before, size, kernel, stride, padding=kernel // 2, bias=False)
            self.layers[bn] = norms(size)
            self.layers[bn].register_forward_hook(lambda _, given, out: self.seen.update({bn: given[0][:, 0].numel()}))

        add("conv0", "norm0", 3, first, 3)
        before, self.blocks = first, []
        for stage in range(4):
            for block in range(2):
                name, size, stride = f"stage{stage}_block{block}/", first << stage, 2 if stage and not block else 1
                add(f"{name}conv0", f"{name}norm0", before, size, 3, stride)
                add(f"{name}conv1", f"{name}norm1", size, size, 3)
                if before != size:
                    add(f"{name}shortcut", f"{name}shortcut_norm", before, size, 1, stride)
                before = size
                self.blocks.append(name)
        self.output = nn.Linear(before, CLASSES)

    def forward(self, x, lengths):
        def normed(conv, bn, h):
            return self.layers[bn](self.layers[conv](h))

        h = torch.relu(normed("conv0", "norm0", x.permute(0, 3, 1, 2)))
        for name in self.blocks:
            inner = torch.relu(normed(f"{name}conv0", f"{name}norm0", h))
            inner = normed(f"{name}conv1", f"{name}norm1", inner)
            h = normed(f"{name}shortcut", f"{name}shortcut_norm", h) if f"{name}shortcut" in self.layers else h
            h = torch.relu(inner + h)
        return self.output(h.mean((2, 3)))

    def pairs(self):
        found = output_pairs(self)
        for name, layer in self.layers.items():
            if isinstance(layer, nn.Conv2d):
                found[f"{name}/kernel"] = (layer.weight, KERNEL)
                continue
            found |= {f"{name}/scale": (layer.weight, SAME), f"{name}/bias": (layer.bias, SAME)}
            if isinstance(layer, nn.BatchNorm2d):
                found[f"@state/batch_stats/{name}/mean"] = (layer.running_mean, SAME)
                found[f"@state/batch_stats/{name}/var"] = (layer.running_var, SAME)
        return found


def to_torch(net, params):
    """Gives a PyTorch network the weights of ours, in float64."""
    net.double()
    with torch.no_grad():
        pairs, leaves = net.pairs(), flat_paths(params)
        assert pairs.keys() == leaves.keys()
        for path, (tensor, axes) in pairs.items():
            tensor.copy_(torch.from_numpy(np.array(leaves[path])).permute(*np.argsort(axes).tolist()))
    return net


def from_torch(net):
    """The weights as Flax has them, and the running variances as the biased ones that Flax keeps."""
    with torch.no_grad():
        found = {path: tensor.permute(*axes).numpy().copy() for path, (tensor, axes) in net.pairs().items()}
    for path, value in found.items():
        if path.endswith("/var"):
            n, kept = net.seen[path.removeprefix("@state/batch_stats/").removesuffix("/var")], MOMENTUM**STEPS
            found[path] = kept + (value - kept) * (n - 1) / n  # what the first value, 1, still counts is alike in both
    return found


def compare(name, width, sample, make, x, y, lr, **model):
    """Trains both; asserts that all arrays moved and agree, and prints how far they are apart.

    Args:
      make: shapes of our leaves by path -> the PyTorch network.
      x, y: batches `[STEPS, BATCH, ...]`.
    """
    task = "language_model" if y.ndim == 3 else "classification"
    settings = {
        f"model__{key}": value for key, value in {"name": name, "width": width, "loss": "softmax", **model}.items()
    }
    config = tiny.config("fedavg", task__name=task, local__batch_size=BATCH, **settings)
    method = resolve(config, sample, sample.tokens or CLASSES)
    first = jax.jit(method.model.init)(jax.random.key(0))
    ours = jax.jit(
        make_local_round(method.model, method.loss, method.layout, LocalSettings(STEPS, BATCH, unroll=False))
    )(first, (), jnp.asarray(x), jnp.asarray(y), jnp.float32(lr), jax.random.key(0))
    net = to_torch(make({path: leaf.shape for path, leaf in flat_paths(first).items()}), first)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=lr)
    losses = []
    for batch, labels in zip(x, y, strict=True):
        there = ~np.isnan(batch).any(-1) if sample.padded else np.ones(batch.shape[:2], bool)
        given = torch.from_numpy(batch).long() if sample.tokens else torch.from_numpy(np.nan_to_num(batch)).double()
        optimizer.zero_grad()
        logits = net(given, torch.from_numpy(there.sum(1)))
        loss = functional.cross_entropy(logits.flatten(0, -2), torch.from_numpy(labels).long().flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert float(ours.loss) == pytest.approx(np.mean(losses), rel=1e-5)
    apart, start = {}, flat_paths(first)
    got, want = flat_paths(ours.params), from_torch(net)
    for path in want:
        largest = np.abs(want[path]).max()
        moved = np.abs(want[path] - start[path]).max()
        apart[path] = np.abs(np.asarray(got[path], np.float64) - want[path]).max() / largest
        assert moved > 5 * TOLERANCE * largest, f"{path} moved by {moved / largest:.1e} of its largest value"
    worst = max(apart, key=apart.get)
    print(f"{name} {model}: {len(apart)} arrays, at most {apart[worst]:.1e} of the largest value apart ({worst})")
    assert apart[worst] < TOLERANCE


def series(rng, steps=9, channels=3):
    """Series of 4 to 9 steps with NaN behind them, and labels."""
    x = rng.normal(size=(STEPS, BATCH, steps, channels)).astype(np.float32)
    x[np.arange(steps) >= rng.integers(4, steps + 1, (STEPS, BATCH, 1))] = np.nan
    return x, rng.integers(0, CLASSES, (STEPS, BATCH)).astype(np.int32)


SERIES = SampleSpec((9, 3), FEATURES, padded=True)


def test_char_lstm():
    tokens, rng = 11, np.random.default_rng(0)
    x, y = rng.integers(0, tokens, (2, STEPS, BATCH, 7)).astype(np.int32)
    sample = SampleSpec((7,), SEQUENCES, tokens=tokens)
    compare("char_lstm", 1 / 16, sample, lambda shapes: Recurrent("LSTM", 8, 16, 2, tokens), x, y, 0.5)


def test_gru_of_padded_series():
    x, y = series(np.random.default_rng(1))
    compare("gru", 1 / 8, SERIES, lambda shapes: Recurrent("GRU", 3, 16, 1), x, y, 0.5)


def test_cnn1d_of_padded_series():
    x, y = series(np.random.default_rng(2))
    compare("cnn1d", 1 / 8, SERIES, lambda shapes: Conv1D([shapes[f"conv{k}/kernel"] for k in range(3)]), x, y, 0.1)


@pytest.mark.parametrize(("norm", "lr"), [("batch", 0.001), ("group", 0.01)])
def test_resnet18(norm, lr):
    """With a small learning rate: rounding switches a ReLU now and then, which batch norm then makes much of."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(STEPS, BATCH, 16, 16, 3)).astype(np.float32)
    y = rng.integers(0, CLASSES, (STEPS, BATCH)).astype(np.int32)
    compare("resnet18", 1 / 8, SampleSpec((16, 16, 3)), lambda shapes: ResNet18(8, norm), x, y, lr, norm=norm)
