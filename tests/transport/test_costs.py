"""Bytes and seconds of a dispatch, and the layer tables they come from."""

import dataclasses
import types

import numpy as np
import pytest

from prfl_jax.config.defaults import default_config
from prfl_jax.submodel.layers import layer_table
from prfl_jax.submodel.size import ModelSize
from prfl_jax.submodel.size_from_config import model_size_from_config
from prfl_jax.system.errors import UserError
from prfl_jax.transport import make_costs

SIZE = ModelSize(layers=(800, 200), fixed=10, bytes_per_value=4.0, layer_flop=(3000.0, 1000.0), min_percent=5)


def test_counted_bytes():
    costs = make_costs(SIZE, np.array([100, 50, 1]), 100)
    # 1 % would be 10 weights; each layer keeps its 5 % share: 40 + 10.
    assert costs.down_bytes.tolist() == [4 * 1010, 4 * 510, 4 * 60]
    assert costs.up_bytes.tolist() == costs.down_bytes.tolist()
    # A bitmap of 1000 weights takes 125 bytes, 50 indices 200.
    assert costs.mask_bytes.tolist() == [0, 125, 125]
    assert costs.group.tolist() == [100, 50, 1]
    assert costs.compute_s.tolist() == [0.0, 0.0, 0.0]


def test_few_weights_are_cheaper_as_indices():
    sparse = dataclasses.replace(SIZE, min_percent=1)
    assert make_costs(sparse, np.array([1]), 100).mask_bytes.tolist() == [40]


def test_density_rule_is_density_times_model_without_masks():
    size = dataclasses.replace(SIZE, bytes_per_value=26.5e6 / 1010)
    costs = make_costs(size, np.array([100, 33]), 100, byte_rule="density")
    assert costs.down_bytes.tolist() == costs.up_bytes.tolist() == [26_500_000, 8_745_000]
    assert not costs.mask_bytes.any()


def test_compute_seconds():
    # 3 x 4000 FLOP x 100 samples = 1.2 MFLOP at density 1.
    costs = make_costs(SIZE, np.array([100, 50]), 100, flop_s=(1.2e6, 2.4e6))
    assert costs.compute_s.tolist() == [1.0, 0.25]
    costs = make_costs(SIZE, np.array([100, 50]), np.array([50, 100]), (1.2e6, 1.2e6), flop_share=np.array([1.0, 0.8]))
    assert costs.compute_s.tolist() == pytest.approx([0.5, 0.8])


def test_costs_refuse():
    with pytest.raises(UserError, match="transport.bytes"):
        make_costs(SIZE, np.array([100]), 100, byte_rule="guessed")
    with pytest.raises(UserError, match="clients.flop_s"):
        make_costs(SIZE, np.array([100, 100]), 100, flop_s=(1.0, 0.0))
    with pytest.raises(ValueError, match="shape"):
        make_costs(SIZE, np.array([100, 100]), 100, flop_s=(1.0,))
    with pytest.raises(ValueError, match="FLOP"):
        make_costs(dataclasses.replace(SIZE, layer_flop=()), np.array([100]), 100, flop_s=(1.0,))


def test_layer_tables_have_the_papers_sizes():
    for name, shape, classes, total, round_gflop in (
        ("conv2", (28, 28, 1), 62, 6_603_710, 103),
        ("vgg11", (32, 32, 3), 10, 9_750_922, 920),
    ):
        layers = layer_table(name, shape, classes)
        assert sum(layer.weights + layer.biases for layer in layers) == total
        # Ten clients x 5 steps x batch 20, forward and backward (design.md, section 4).
        assert round(3 * 1000 * sum(layer.flop for layer in layers) / 1e9) == round_gflop


def test_conv2_layers():
    layers = layer_table("conv2", (28, 28, 1), 62)
    assert [(layer.name, layer.kernel, layer.positions) for layer in layers] == [
        ("conv0", (5, 5, 1, 32), 784),
        ("conv1", (5, 5, 32, 64), 196),
        ("dense0", (3136, 2048), 1),
        ("dense1", (2048, 62), 1),
    ]
    half = layer_table("conv2", (28, 28, 1), 62, width=0.5)
    assert [layer.kernel for layer in half] == [(5, 5, 1, 16), (5, 5, 16, 32), (1568, 1024), (1024, 62)]


def test_layer_table_refuses():
    with pytest.raises(UserError, match="resnet"):
        layer_table("resnet", (32, 32, 3), 10)
    with pytest.raises(UserError, match="too small"):
        layer_table("vgg11", (16, 16, 3), 10)


def settings(data, model, size_mb=None, classes=None):
    return types.SimpleNamespace(
        data=types.SimpleNamespace(name=data),
        model=types.SimpleNamespace(name=model, width=1.0, size_mb=size_mb, classes=classes),
        density=types.SimpleNamespace(min_density=0.05),
        submodel=types.SimpleNamespace(name="nested"),
    )


def test_model_size_from_config():
    size = model_size_from_config(settings("femnist", "conv2", size_mb=26.5))
    assert (size.total, size.value_bytes(100), size.min_percent) == (6_603_710, 26_500_000, 5)
    assert len(size.layers) == len(size.layer_flop) == 4 and size.fixed == 32 + 64 + 2048 + 62
    size = model_size_from_config(settings("cifar10", "vgg11"))
    assert (size.total, size.value_bytes(100)) == (9_750_922, 4 * 9_750_922)
    assert model_size_from_config(settings("mnist_embedded", "conv2", classes=62)).total == 6_603_710
    assert model_size_from_config(default_config()).total < 6_603_710  # ten outputs
    for wrong in (settings("some.npz", "conv2"), settings("femnist", "conv2", size_mb=0.0)):
        with pytest.raises(UserError):
            model_size_from_config(wrong)
