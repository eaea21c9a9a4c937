"""The builder. It works without TensorFlow: plain tensors, ArrayRecord files."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from prfl_jax.data.femnist import leaf


class Femnist(tfds.core.GeneratorBasedBuilder):
    """FEMNIST: handwritten characters, 62 classes, keyed by writer (LEAF, Caldas et al. 2018).

    Features: `image` `[28, 28, 1]` uint8 (ink dark, background 255), `label` int64,
    `writer` bytes. Where LEAF's folder has `train` and `test`, those are the splits;
    otherwise every tenth image of each writer is a test image.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "manual_dir is the folder in which LEAF's FEMNIST preprocessing wrote its JSON files (train/ and test/)."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Handwritten characters by writer, read from LEAF's JSON files.",
            features=tfds.features.FeaturesDict(
                {
                    # An Image feature would need TensorFlow to encode it.
                    "image": tfds.features.Tensor(shape=(leaf.SIDE, leaf.SIDE, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=leaf.CLASSES),
                    "writer": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://leaf.cmu.edu",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        files = leaf.parts(pathlib.Path(dl_manager.manual_dir))
        if "all" not in files:
            return {part: self._generate_examples(paths) for part, paths in files.items()}
        return {part: self._generate_examples(files["all"], part) for part in ("train", "test")}

    def _generate_examples(
        self, files: list[pathlib.Path], cut: str | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield keyed examples; `cut` keeps one part of files that are not divided yet."""
        for example in leaf.read(files):
            is_test = example.number % leaf.TEST_EVERY == leaf.TEST_EVERY - 1
            if cut is not None and is_test != (cut == "test"):
                continue
            yield (
                f"{example.writer}/{example.number:06d}",
                {"image": example.image, "label": example.label, "writer": example.writer},
            )
