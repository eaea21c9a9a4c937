"""The tensorflow-datasets builder of FEMNIST by writer; works without TensorFlow (plain tensors, ArrayRecord files)."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from prfl_jax.data.femnist import leaf
from prfl_jax.data.leaf import parts
from prfl_jax.system.errors import UserError


class Femnist(tfds.core.GeneratorBasedBuilder):
    """FEMNIST: handwritten characters, 62 classes, keyed by writer (LEAF, Caldas et al. 2018).

    Features: `image` `[28, 28, 1]` uint8 (ink dark, background 255), `label` int64,
    `writer` bytes. Where LEAF's folder has `train` and `test`, those are the splits;
    otherwise every tenth image of each writer is a test image.

    Attributes:
        found: by split, what the JSON files held, once they are read.
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
        folder = pathlib.Path(dl_manager.manual_dir)
        files = parts(folder)
        self.found = {part: leaf.images_found() for part in ("train", "test")}
        return {part: self._generate_examples(folder, files, part) for part in self.found}

    def _generate_examples(
        self, folder: pathlib.Path, files: dict[str, list[pathlib.Path]], part: str
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield keyed examples of one split; files that are not divided yet are divided here.

        Raises:
            UserError: there are none.
        """
        divided, count = "all" not in files, 0
        for example in leaf.read(files[part if divided else "all"], self.found[part]):
            is_test = example.number % leaf.TEST_EVERY == leaf.TEST_EVERY - 1
            if not divided and is_test != (part == "test"):
                continue
            count += 1
            yield (
                f"{example.writer}/{example.number:06d}",
                {"image": example.image, "label": example.label, "writer": example.writer},
            )
        if not count:
            most = max(self.found[part].counts.values(), default=0)
            if divided or not most:
                raise UserError(f"{folder}: its {'files hold' if not divided else part + ' files hold'} no image")
            raise UserError(
                f"{folder}: no writer has {leaf.TEST_EVERY} images (the most is {most}), and every "
                f"{leaf.TEST_EVERY}th of a writer's is a test image; give more, or LEAF's folders train and test"
            )
