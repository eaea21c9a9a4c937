"""Presets of the FedMP study: networks, scenarios and the sweeps behind its figures, with the methods run in each.

Learning rates, rounds and targets were chosen by runs of Syn-FL alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from prfl_jax.studies.columns import Preset
from prfl_jax.studies.fedmp.paper import (
    ASYNCHRONOUS,
    BUDGETS_S,
    LANGUAGE,
    MAIN,
    MIXTURES,
    NONIID_TARGETS,
    PERPLEXITY_TARGET,
    TARGETS,
)
from prfl_jax.studies.fedmp.setting import Setting
from prfl_jax.studies.fedmp.workers import set_workers

Change = Callable[[Any], None]
CLOCK_WINDOWS = 200


@dataclasses.dataclass(frozen=True)
class Network:
    """What the columns of one network share.

    Attributes:
      key, title: of its base column.
      change: sets data, network and local work.
      samples: of the pass over a worker's data whose time a round takes, with ten workers.
      per_round: samples that a round trains.
      thresholds: levels of the task's metric whose times the reports have.
      target: the one whose time is compared.
      eval_every_s: the evaluation grid.
      horizon_s: by scenario.
      why: how these were chosen.
    """

    key: str
    title: str
    change: Change
    samples: int
    per_round: int
    thresholds: tuple[float, ...]
    target: float
    eval_every_s: float
    horizon_s: dict[str, float]
    why: str

    def column(
        self, methods: tuple[str, ...], sweep: str = "", value: Any = None, extra: Change | None = None
    ) -> Setting:
        """The base column, or one in which something is varied.

        Args:
          methods: rows that are run.
          sweep, value: as in `Setting`.
          extra: sets what is varied; scenarios and numbers of workers are set here.
        """
        scenario = value if sweep == "scenario" else "medium"
        number = value if sweep == "workers" else 10

        def change(c: Any) -> None:
            c.horizon_s, c.eval_every_s = self.horizon_s[scenario], self.eval_every_s
            self.change(c)
            set_workers(c, scenario, number, pass_share=self.per_round / self.samples)
            if extra is not None:
                extra(c)

        key = f"{self.key}_{value}" if sweep == "scenario" else f"{self.key}_{sweep}_{value}" if sweep else self.key
        title = f"{self.title}, {_TITLES[sweep].format(value)}" if sweep else self.title
        why = f"{self.why}; the pass is that of ten workers" if sweep == "workers" else self.why
        return Setting(key, title, change, self.thresholds, why, None, methods, self.key, sweep, value, self.target)


_TITLES = {
    "scenario": "heterogeneity {}",
    "theta": "theta {}",
    "ratio": "pruning ratio {} for all",
    "noniid": "non-IID level {}",
    "workers": "{} workers",
    "floor": "densities of at least {}",
}


def theta(value: float) -> Change:
    """Regions of ratios wider than this are split."""

    def change(c: Any) -> None:
        c.density.theta = value

    return change


def ratio(value: float) -> Change:
    """The same pruning ratio for all workers in all rounds."""

    def change(c: Any) -> None:
        c.density.name, c.density.tiers = "tiers", (round(1.0 - value, 2),)

    return change


def noniid(level: int) -> Change:
    """The paper's non-IID level (section V-F)."""

    def change(c: Any) -> None:
        c.data.partition, c.data.fedmp_level = "fedmp", level

    return change


def floor(density: float) -> Change:
    """The least density that an agent may choose."""

    def change(c: Any) -> None:
        c.density.min_density = density

    return change


def images(data: str, name: str, width: float, lr: float) -> Change:
    """Images dealt IID, softmax, SGD; flips and crops of colour images."""

    def change(c: Any) -> None:
        c.data.name, c.data.partition = data, "iid"
        c.model.name, c.model.width, c.model.loss = name, width, "softmax"
        c.local.lr = lr
        if name != "cnn":
            c.model.init = "flax"  # with PyTorch's, deep networks begin slowly
        if data in ("cifar10", "tiny_imagenet"):
            c.data.augment, c.data.normalize = "crop_flip", "cifar10"

    return change


def words(data: str, width: float) -> Change:
    """The next of 10,000 words, in windows of 35 dealt IID; SGD of large steps, shortened gradients."""

    def change(c: Any) -> None:
        c.task.name = "language_model"
        c.data.name, c.data.partition, c.data.context = data, "iid", 35
        c.model.name, c.model.width, c.model.loss, c.model.init = "word_lstm", width, "softmax", "flax"
        c.local.lr, c.local.clip_grad_norm = 20.0, 0.25

    return change


def few(steps: int, batch: int, test: int, inner: Change) -> Change:
    """Rounds that two CPU cores train in one to two seconds, a part of the test samples, and PR-FL's short interval."""

    def change(c: Any) -> None:
        inner(c)
        c.data.test_limit, c.data.holdout_max = test, test // 5
        c.local.steps, c.local.batch_size = steps, batch
        c.density.interval, c.density.patience, c.density.min_delta = 10, 2, 0.005
        c.window.dt_s = 2.2  # of PR-FL's windows: a fast worker's cycle

    return change


_WHY = (
    "The five local steps of a round take the simulated time of a pass over a worker's samples. The time budget is "
    "where round {} of Syn-FL ends; learning rate and target follow from runs of Syn-FL alone"
)


def cpu() -> Preset:
    """What two CPU cores do in hours, on data that can be had."""
    cnn = Network(
        "cnn", "CNN, MNIST by writer dealt IID", few(5, 20, 2000, images("mnist_by_writer", "cnn", 1.0, 0.01)),
        6000, 100, (0.80, 0.85, 0.90, 0.92, 0.94), 0.90, 15.0,
        {"low": 1286.0, "medium": 1829.0, "high": 2427.0}, _WHY.format(500),
    )  # fmt: skip
    alexnet = Network(
        "alexnet", "AlexNet of half width, CIFAR-10", few(5, 20, 2000, images("cifar10", "alexnet", 0.5, 0.1)),
        5000, 100, (0.30, 0.35, 0.40, 0.45, 0.50, 0.55, 0.60), 0.55, 120.0,
        {"low": 5570.0, "medium": 12_780.0, "high": 17_960.0}, _WHY.format(500),
    )  # fmt: skip
    vgg19, resnet50 = (
        Network(
            key, f"{title}, CIFAR-10", few(5, 20, 2000, images("cifar10", key, width, 0.1)),
            5000, 100, (0.20, 0.30, 0.40, 0.50), 0.30, 60.0, horizon_s, _WHY.format(300),
        )
        for key, title, width, horizon_s in (
            ("vgg19", "VGG-19 of a quarter of the width", 0.25, {"medium": 3595.0}),
            ("resnet50", "ResNet-50 of an eighth of the width", 0.125, {"medium": 2198.0}),
        )
    )  # fmt: skip
    lstm = Network(
        "lstm", "LSTM of 200 units, words of Shakespeare", few(5, 10, 500, words("shakespeare_words", 200 / 650)),
        2280, 50, (500.0, 450.0, 425.0, 400.0, 375.0, 350.0, 325.0, 300.0), 300.0, 180.0,
        {"medium": 8665.0, "high": 11_650.0}, _WHY.format(300),
    )  # fmt: skip
    columns = [
        cnn.column((*MAIN, "fedmp_literal", "fedmp_bsp", *ASYNCHRONOUS, *MIXTURES)),
        alexnet.column((*MAIN, *ASYNCHRONOUS)),
        lstm.column(LANGUAGE),
        *(network.column(("fedmp", "fedmp_bsp"), "floor", 0.5, floor(0.5)) for network in (cnn, alexnet)),
        cnn.column(MAIN, "scenario", "low"),
        *(network.column(MAIN, "scenario", "high") for network in (cnn, alexnet)),
        lstm.column(LANGUAGE, "scenario", "high"),
        *(cnn.column(("fedmp",), "theta", value, theta(value)) for value in (0.01, 0.05, 0.25)),
        *(cnn.column(("fedmp",), "ratio", value, ratio(value)) for value in (0.2, 0.4, 0.6, 0.8)),
        *(cnn.column(MAIN, "noniid", level, noniid(level)) for level in (30, 60)),
        *(cnn.column(MAIN, "workers", number) for number in (20, 30)),
        *(network.column(MAIN) for network in (vgg19, resnet50)),
    ]
    return Preset("cpu", tuple(columns), CLOCK_WINDOWS)


def full() -> Preset:
    """The paper's networks, data and time budgets; a round is 100 steps of 50 samples, AlexNet's pass."""
    why = "the paper's time budget and target; its number of local steps is not given"

    def hundred(inner: Change) -> Change:
        def change(c: Any) -> None:
            inner(c)
            c.local.steps, c.local.batch_size = 100, 50

        return change

    def skewed(network: Network, level: int) -> Setting:
        column = network.column(MAIN, "noniid", level, noniid(level))
        return dataclasses.replace(column, target=NONIID_TARGETS[network.key])

    found = []
    for key, title, data, lr in (
        ("cnn", "CNN, MNIST by writer dealt IID", "mnist_by_writer", 0.01),
        ("alexnet", "AlexNet, CIFAR-10", "cifar10", 0.1),
        ("vgg19", "VGG-19, EMNIST", "emnist", 0.1),
        ("resnet50", "ResNet-50, Tiny-ImageNet", "tiny_imagenet", 0.1),
    ):
        targets, budget = (TARGETS[key], NONIID_TARGETS[key]), BUDGETS_S[key]
        found.append(
            Network(
                key,
                title,
                hundred(images(data, key, 1.0, lr)),
                5000,
                5000,
                tuple(sorted(set(targets))),
                targets[0],
                budget / 200,
                {"low": budget, "medium": budget, "high": budget},
                why,
            )  # fmt: skip
        )
    lstm = Network(
        "lstm", "two LSTM layers of 650, Penn TreeBank", hundred(words("ptb", 1.0)), 5000, 5000, (PERPLEXITY_TARGET,),
        PERPLEXITY_TARGET, 500.0, {"medium": 100_000.0, "high": 100_000.0},
        "the paper's target; it gives no time budget",
    )  # fmt: skip
    cnn, alexnet, vgg19, _ = found
    everything = (*MAIN, "fedmp_literal", "fedmp_bsp", *ASYNCHRONOUS)
    columns = [
        cnn.column((*everything, *MIXTURES)),
        *(network.column(everything) for network in found[1:]),
        lstm.column(LANGUAGE),
        *(network.column(MAIN, "scenario", scenario) for network in found for scenario in ("low", "high")),
        lstm.column(LANGUAGE, "scenario", "high"),
        *(n.column(("fedmp",), "theta", value, theta(value)) for n in found for value in (0.01, 0.05, 0.25)),
        *(n.column(("fedmp",), "ratio", value, ratio(value)) for n in found for value in (0.2, 0.4, 0.6, 0.8)),
        *(skewed(network, level) for network in (cnn, alexnet) for level in (30, 60)),
        *(skewed(vgg19, level) for level in (10, 30)),
        *(alexnet.column(MAIN, "workers", number) for number in (20, 30)),
    ]
    return Preset("full", tuple(columns), CLOCK_WINDOWS)
