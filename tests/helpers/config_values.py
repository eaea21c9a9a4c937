"""For every key of a config: values it must refuse, and one it must accept that is not the default."""

from __future__ import annotations

from typing import Any

from ml_collections import config_dict

NAN, INF = float("nan"), float("inf")

# key -> (another allowed value, [values that are refused])
VALUES: dict[str, tuple[Any, list[Any]]] = {
    "seed": (7, [-1, 2**32, 1.5, True, None, "0"]),
    "strategy": ("fedavg", ["fedavgm", "", 3]),
    "rounds": (5, [0, -3, 2.5, True, None, "abc"]),
    "horizon_s": (12.0, [0.0, -1.0, NAN, INF, "long"]),
    "eval_every_s": (10.0, [0.0, -5.0, NAN, None]),
    "compare": (("fedavg",), [("fedavgm",), "fedavg", (1,), None]),
    "stop_early": (True, [1, "yes", None]),
    "data.name": ("a/b.npz", ["mnist", "", "tfds:", ".npz", "x.npy", None]),
    "data.dir": ("elsewhere", ["", "  ", 3]),
    "data.partition": ("iid", ["IID", None]),
    "data.alpha": (0.6, [0.0, -1.0, INF, "1"]),
    "data.labels_per_client": (3, [0, 1.0, None]),
    "data.fedmp_level": (20, [-1, 101, 0.5]),
    "data.writers": (50, [0, None, 1.5]),
    "data.split_writers_over": (40, [0, 1.5]),
    "data.min_images_per_writer": (5, [0, "20"]),
    "data.train_limit": (1000, [0, -1, 10.5, True]),
    "data.test_limit": (100, [0, "all"]),
    "data.context": (35, [1, 0, 80.0, None, 10**7]),
    "data.vocabulary": (500, [0, "all", 10**6]),
    "data.unit": ("characters", ["letters", None]),
    "data.targets": ("last", ["all", None]),
    "data.holdout_fraction": (0.2, [-0.1, 1.0, NAN, None]),
    "data.holdout_max": (50, [0, -1, 2.0]),
    "data.augment": ("crop_flip", ["flip", True]),
    "data.normalize": ("inverted", ["imagenet", None]),
    "model.name": ("nets.mine:Small", ["resnet", "nets.mine", ":Small", "nets:", "a b:C", None]),
    "model.width": (0.5, [0.0, -1.0, NAN]),
    "model.classes": (62, [1, 0, 10.0, True]),
    "model.init": ("he", ["xavier", None]),
    "model.size_mb": (26.5, [0.0, -26.5, INF]),
    "model.loss": ("softmax", ["mse"]),
    "task.name": (None, ["regression", None, 1]),  # the other one wants other data
    "clients.number": (9, [0, -1, 10.0, None]),
    "clients.up_mb_s": ((1.0,) * 10, [(1.0, -2.0), (0.0,), (NAN,), ("1",), 5.0, None]),
    "clients.down_mb_s": ((2.0,) * 10, [(1.0, -2.0), (INF,), (True,), "fast"]),
    "clients.flop_s": ((1e9,) * 10, [(-1e9,), (0.0,), 1e9, None]),
    "clients.sigma": (0.0, [-0.1, NAN, None]),
    "server.up_mb_s": (10.0, [0.0, -20.0, None]),
    "server.down_mb_s": (50.0, [0.0, NAN, "100"]),
    "server.sigma": (0.0, [-1.0, INF]),
    "server.contention": (False, [0, "no"]),
    "local.name": (None, ["adam", None]),  # the other one is for one sub-model only
    "local.steps": (1, [0, 5.0]),
    "local.batch_size": (10, [0, -20, True]),
    "local.lr": (0.1, [0.0, -0.25, NAN, INF]),
    "local.momentum": (0.9, [1.0, -0.1]),
    "local.prox_mu": (0.01, [-0.01, NAN, INF]),
    "local.lr_decay": (0.5, [0.0, 1.5, NAN]),
    "local.lr_decay_rounds": (100, [0, 1.5]),
    "local.lr_dt_ref_s": (12.5, [0.0, -1.0]),
    "submodel.name": ("leading", ["rolled", None]),
    "submodel.importance": ("weight", ["random"]),
    "density.name": ("time_balance", ["half", 1.0]),
    "density.tiers": ((1.0, 0.5), [(0.0,), (1.5,), 0.5, None]),
    "density.rule": ("literal", ["exact"]),
    "density.interval": (10, [0, -50, 50.0]),
    "density.min_density": (0.1, [0.0, -0.1, 1.5, 0.001, 0.055, NAN]),
    "density.delta_rho": (0.1, [0.0, 0.001, 1.2, NAN]),
    "density.patience": (2, [0, 2.5]),
    "density.min_delta": (0.001, [-0.1, INF]),
    "aggregation.name": ("fedavg", ["mean"]),
    "aggregation.server_lr": (0.5, [0.0, -1.0]),
    "aggregation.alpha": (0.9, [0.0, 1.5, NAN]),
    "aggregation.staleness": ("hinge", ["none", None]),
    "aggregation.staleness_a": (0.5, [-0.6, NAN]),
    "aggregation.staleness_b": (1e9, [-4.0, INF]),
    "aggregation.client_weight": ("uniform", ["equal"]),
    "aggregation.byzantine": (1, [-1, 0.5, None]),
    "aggregation.clip_norm": (2.0, [0.0, -1.0, NAN, "1"]),
    "attack.name": (None, ["lie", None]),  # with how many, or who
    "attack.number": (None, [-1, 0.5, None]),
    "attack.clients": (None, [(-1,), (0.5,), 3, None]),
    "attack.scale": (2.0, [0.0, -1.0, INF]),
    "privacy.noise_multiplier": (None, [-1.0, INF, None]),  # with aggregation.clip_norm
    "privacy.delta": (1e-6, [0.0, 1.0, NAN]),
    "window.close": ("k_arrivals", ["never", None]),
    "window.dt_s": (7.0, [0.0, -14.0, NAN, "abc"]),
    "window.first_waits_for_all": (False, ["True", 1]),
    "window.k": (2, [0, 1.0]),
    "window.dispatch": ("on_arrival", ["cohort"]),
    "window.release_min_s": (1.0, [0.0, -0.5]),
    "window.cohort": (5, [-1, 0.5]),
    "window.deadline_share": (0.5, [0.0, 1.5, NAN, None]),
    "window.deadline_factor": (2.0, [0.9, INF, None]),
    "transport.name": ("distinct", ["multicast"]),
    "transport.bytes": ("density", ["free"]),
    "faults.dropout": (0.1, [1.0, -0.1, NAN, None]),
    "faults.crash": (0.2, [1.0, -1e-9, "0.1"]),
    "faults.lost_upload": (0.3, [1.5, INF]),
    "faults.repeated_upload": (0.999, [1.0, INF]),
    "faults.join_s": ((0.0, 5.0), [(-1.0,), (NAN,), 5.0, None]),
    "faults.leave_s": ((1e9, 5.0), [(0.0,), (INF,), ("1",), "never"]),
    "faults.availability": ("there.csv", ["", "  ", 3]),
    "faults.bandwidth": ("speeds.csv", ["", ("a.csv",)]),
    "eval.model": ("fedavg", ["best"]),
    "eval.signal": ("test", ["train"]),
    "eval.batch_size": (50, [0, 500.0]),
    "eval.thresholds": ((0.5,), [(NAN,), (INF,), ("0.8",), 0.8]),
    "engine.clients": ("map", ["pmap"]),
    "engine.train": ("pending", ["batch"]),
    "engine.matmul": ("tensorfloat32", ["float16", None]),
    "engine.store": ("bfloat16", ["float16", None]),
    "engine.models": ("host", ["disk", None]),
    "engine.group": (4, [-1, 1.5, None]),
    "engine.devices": (1, [-1, 0.5, None]),
    "engine.chunk_windows": (4, [-1, 1.5, None]),
    "engine.chunk_s": (1.0, [0.0, INF]),
    "engine.unroll": (False, [2]),
    "engine.deterministic": (True, ["yes"]),
    "checkpoint.every_s": (10.0, [0.0, -1.0, NAN]),
    "checkpoint.keep": (5, [0, 1.5]),
}


def put(cfg: config_dict.ConfigDict, key: str, value: Any) -> config_dict.ConfigDict:
    """Sets a dotted key whatever its type, as a careless config file might."""
    group, _, leaf = key.rpartition(".")
    holder = cfg[group] if group else cfg
    with holder.ignore_type():
        holder[leaf] = value
    return cfg
