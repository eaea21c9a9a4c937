"""The same arrays by way of each source of a data set."""

import sys
import types

import numpy as np

from prfl_jax.config.defaults import default_config
from prfl_jax.data import Dataset, prepared, sources
from prfl_jax.data import femnist as femnist_room

RNG = np.random.default_rng(0)
TRAIN, TEST = 40, 12


def good(shape=(8, 8), classes=10):
    """A data set without any fault; classes 0 .. classes-1 in both parts."""
    return {
        "x_train": RNG.integers(0, 256, (TRAIN, *shape), dtype=np.uint8),
        "y_train": np.arange(TRAIN, dtype=np.int64) % classes,
        "x_test": RNG.integers(0, 256, (TEST, *shape), dtype=np.uint8),
        "y_test": np.arange(TEST, dtype=np.int64) % classes,
    }


class FakeBuilder:
    """What the package uses of a tensorflow-datasets builder."""

    def __init__(self, arrays, classes=10, splits=None):
        self.arrays = arrays
        self.info = types.SimpleNamespace(
            features={"image": None, "label": types.SimpleNamespace(num_classes=classes)}, splits=splits
        )

    def as_data_source(self, part):
        images, labels = self.arrays[f"x_{part}"], self.arrays[f"y_{part}"]
        records = [{"image": x, "label": y} for x, y in zip(images, labels, strict=True)]
        if "writer_train" in self.arrays:
            return [{**r, "writer": b"w%d" % (i % 3)} for i, r in enumerate(records)]
        return records


class Sources:
    """Loads the same arrays by way of each source."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.patch = folder, monkeypatch

    def config(self, name, **changes):
        cfg = default_config().data
        cfg.update({"name": name, "dir": str(self.folder), **changes})
        return cfg

    def _builder(self, builder):
        package = types.SimpleNamespace(builder=lambda name, data_dir: builder)
        self.patch.setattr(prepared, "tensorflow_datasets", lambda needed_for: package, raising=False)

    def npz(self, arrays):
        np.savez(self.folder / "own.npz", **arrays)
        return self.config("own.npz")

    def function(self, arrays):
        module = types.ModuleType("checked_function")
        module.images = lambda folder: Dataset("own", num_classes=10, **arrays)
        self.patch.setitem(sys.modules, "checked_function", module)
        return self.config("checked_function:images")

    def tfds(self, arrays):
        self._builder(FakeBuilder(arrays))
        return self.config("tfds:own")

    def cifar10_tfds(self, arrays):
        (self.folder / "cifar10").mkdir(exist_ok=True)
        self._builder(FakeBuilder(arrays))
        return self.config("cifar10")

    def cifar10_npz(self, arrays):
        np.savez(self.folder / "cifar10.npz", **arrays)
        return self.config("cifar10")

    def mnist_by_writer(self, arrays):
        np.savez(self.folder / "mnist_by_writer.npz", **arrays, writer_train=np.zeros(TRAIN, np.int16))
        return self.config("mnist_by_writer")

    def femnist(self, arrays):
        (self.folder / "femnist").mkdir(exist_ok=True)
        self._builder(None)
        builder = FakeBuilder({**arrays, "writer_train": True})
        self.patch.setattr(femnist_room, "Femnist", lambda data_dir, file_format: builder)
        return self.config("femnist")

    def embedded(self, arrays):
        """Its images are cut into training and test images by the package: a fault lies in all of them."""
        pixels, labels = arrays["x_train"], arrays["y_train"]
        self.patch.setattr(sources, "_embedded_images", lambda: (pixels, labels))
        return self.config("mnist_embedded")


NAMES = [name for name in vars(Sources) if not name.startswith("_") and name != "config"]
FILES = ["npz", "cifar10_npz", "mnist_by_writer"]
