"""Partitions: the choices of how clients share the training samples (`data.partition`).

Each partition is a pure function of labels or writers, a generator and its own settings. It returns one array of
positions per client; no position is in two. The result of a plugin is checked for the same (`own_partition.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from prfl_jax.data.own_partition import checked_parts
from prfl_jax.registry import Registry, wrong
from prfl_jax.system.errors import UserError

MAX_DRAWS = 100  # of the Dirichlet partition, until each client has its batch
Clients = list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Pool:
    """The training samples that are dealt out.

    Attributes:
        labels: `[N]` int32.
        num_classes: how many labels the data set has.
        writers: `[N]` int32, who wrote each sample; None where it is not known.
        noun: what the samples are called in messages.
    """

    labels: np.ndarray
    num_classes: int
    writers: np.ndarray | None = None
    noun: str = "images"


# one array of positions in the pool per client, and what the report says of the partition beside its name
Dealt = tuple[Clients, dict[str, Any]]
# (pool, the group `data` of the config, number of clients, least number of samples of a client, generator) -> Dealt
Deal = Callable[[Pool, Any, int, int, np.random.Generator], Dealt]


@dataclasses.dataclass(frozen=True)
class Partition:
    """One choice.

    Attributes:
        deal: deals the samples out, see `Deal`.
        chosen_writers: only the samples of `data.writers` chosen writers are dealt out.
        splits_writers: `data.split_writers_over` applies.
        by_label: it deals by the labels of the samples.
    """

    deal: Deal
    chosen_writers: bool = False
    splits_writers: bool = False
    by_label: bool = False


def iid(count: int, num_clients: int, rng: np.random.Generator) -> Clients:
    """Shuffled and cut into parts whose sizes differ by at most one."""
    return np.array_split(rng.permutation(count), num_clients)


def dirichlet(
    labels: np.ndarray, num_clients: int, alpha: float, least: int, rng: np.random.Generator, noun: str = "images"
) -> tuple[Clients, int]:
    """Each label's samples shared in proportions drawn from Dir(alpha, ..., alpha) over the clients.

    Small alpha: few clients hold a label; large: IID. As in Yurochkin et al.,
    "Bayesian nonparametric federated learning of neural networks" (2019); the release of
    PR-FL's authors has alpha = 1.0 for non-IID CIFAR-10. All is drawn again until every
    client holds `least` samples, `MAX_DRAWS` times at most.

    Returns:
        The clients' positions, and how many draws it took.

    Raises:
        UserError: in no draw every client had so many; names those of the best draw.
    """
    if not alpha > 0:
        raise UserError(f"data.alpha={alpha}: allowed are numbers above 0")
    by_label = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    best: Clients = []
    for draw in range(1, MAX_DRAWS + 1):
        parts: list[Clients] = []
        for rows in by_label:
            share = rng.dirichlet(np.full(num_clients, float(alpha)))
            cuts = np.rint(np.cumsum(share)[:-1] * len(rows)).astype(np.int64)
            parts.append(np.split(rng.permutation(rows), cuts))
        clients = [np.concatenate(client) for client in zip(*parts, strict=True)]
        if min(map(len, clients)) >= least:
            return clients, draw
        if not best or min(map(len, clients)) > min(map(len, best)):
            best = clients
    few = with_too_few(best, least, noun)
    raise UserError(
        f"data.alpha={alpha}: after {MAX_DRAWS} draws {few}, fewer than local.batch_size={least}; "
        f"take a larger data.alpha, fewer clients or more {noun}"
    )


def labels_per_client(labels: np.ndarray, num_clients: int, k: int, rng: np.random.Generator) -> Clients:
    """Each client holds samples of k labels; a label's samples are shared equally by its holders.

    Labels are dealt so that the numbers of their holders differ by at most one, in the
    spirit of McMahan et al., "Communication-efficient learning of deep networks from
    decentralized data" (2017), whose clients mostly see two digits.

    Raises:
        UserError: k is not in 1 .. number of labels, or some label would have no holder.
    """
    present = np.unique(labels)
    fewest = -(-len(present) // num_clients)
    if not fewest <= k <= len(present):
        raise UserError(
            f"data.labels_per_client={k}: allowed are {fewest}..{len(present)} "
            f"({len(present)} labels, {num_clients} clients, every label with a client)"
        )
    return _share_labels(labels, num_clients, k, rng)


def _share_labels(labels: np.ndarray, num_clients: int, k: int, rng: np.random.Generator) -> Clients:
    present = np.unique(labels)
    holders: list[list[int]] = [[] for _ in present]
    for client in rng.permutation(num_clients):
        # The k labels with the fewest holders so far, chance deciding between equals.
        order = np.lexsort((rng.random(len(present)), np.array([len(h) for h in holders])))
        for label in order[:k]:
            holders[label].append(int(client))
    parts: list[Clients] = [[] for _ in range(num_clients)]
    for label, who in zip(present, holders, strict=True):
        rows = rng.permutation(np.flatnonzero(labels == label))
        for client, part in zip(who, np.array_split(rows, len(who)), strict=True):
            parts[client].append(part)
    return [np.concatenate(part) for part in parts]


def fedmp(
    labels: np.ndarray,
    num_clients: int,
    level: int,
    num_classes: int,
    rng: np.random.Generator,
    noun: str = "images",
) -> Clients:
    """FedMP's non-IID level y (FedMP, §V-F).

    Its two definitions, by data set: MNIST and CIFAR-10 (here: at most ten classes), y
    percent of each client's images have one label and the rest other labels; EMNIST
    and Tiny-ImageNet (here: more than ten), each client lacks y classes. Level 0 is
    IID in both. Read as follows where the paper is silent: clients take their main
    label in turn from a shuffled list, all clients hold equally many images (as many as
    the rarest main label allows; what is over goes unused), and what is not the main
    label is drawn from the others as they occur. Lacked classes are dealt so that the
    numbers of holders of a class differ by at most one.

    Raises:
        UserError: the level is outside what the data allow.
    """
    present = len(np.unique(labels))
    if level == 0:
        return iid(len(labels), num_clients, rng)
    if num_classes <= 10:
        if not 0 <= level <= 100:
            raise UserError(f"data.fedmp_level={level}: allowed are 0..100 (percent of one label)")
        return _main_label(labels, num_clients, level, rng, noun)
    most = present - -(-present // num_clients)
    if not 0 <= level <= most:
        raise UserError(
            f"data.fedmp_level={level}: allowed are 0..{most} (classes that a client lacks) "
            f"with {present} labels and {num_clients} clients"
        )
    return _share_labels(labels, num_clients, present - level, rng)


def _main_label(labels: np.ndarray, num_clients: int, percent: int, rng: np.random.Generator, noun: str) -> Clients:
    present, counts = np.unique(labels, return_counts=True)
    order = rng.permutation(len(present))
    main = order[np.arange(num_clients) % len(present)]  # per client, an index into `present`
    receivers = np.bincount(main, minlength=len(present))
    size = len(labels) // num_clients
    while np.any(receivers * round(size * percent / 100) > counts):
        size -= 1
    share = round(size * percent / 100)

    shuffled = [rng.permutation(np.flatnonzero(labels == label)) for label in present]
    parts: list[Clients] = [[] for _ in range(num_clients)]
    used = np.zeros(len(present), np.int64)
    for client, label in enumerate(main):
        parts[client].append(shuffled[label][used[label] : used[label] + share])
        used[label] += share

    # Deal the rest at random, samples that go unused to a client -1, then swap away every
    # sample that came to a client whose main label it has.
    rest = rng.permutation(np.concatenate([rows[u:] for rows, u in zip(shuffled, used, strict=True)]))
    rest_label = np.searchsorted(present, labels[rest])
    owner = np.full(len(rest), -1)
    owner[: num_clients * (size - share)] = np.repeat(np.arange(num_clients), size - share)
    owner_main = np.where(owner >= 0, main[owner], -1)
    for label in range(len(present)):
        wrong = np.flatnonzero((owner_main == label) & (rest_label == label))
        partners = np.flatnonzero((owner_main != label) & (rest_label != label))
        if len(partners) < len(wrong):
            raise UserError(
                f"data.fedmp_level={percent}: too few {noun} of other labels than {present[label]}; "
                "take a higher level or more clients"
            )
        partners = rng.choice(partners, len(wrong), replace=False)
        rest[wrong], rest[partners] = rest[partners], rest[wrong]
        rest_label[wrong], rest_label[partners] = rest_label[partners], rest_label[wrong]
    return [np.concatenate([*part, rest[owner == client]]) for client, part in enumerate(parts)]


def by_writer(writers: np.ndarray, num_clients: int, even: bool = False) -> Clients:
    """Consecutive shares of the writers, by id: floor(n / M) each, the last takes what is over.

    The paper's FEMNIST: 193 writers over ten clients, 19 to each of nine, 22 to the last. `even`: shares whose sizes
    differ by one at most, since with nearly as many clients as writers the last one would hold half of all.

    Raises:
        UserError: fewer writers than clients.
    """
    ids = np.unique(writers)
    if len(ids) < num_clients:
        raise UserError(f"data.writers={len(ids)}: fewer than clients.number={num_clients}; every client needs one")
    place, share = np.searchsorted(ids, writers), len(ids) // num_clients
    owner = place * num_clients // len(ids) if even else np.minimum(place // share, num_clients - 1)
    return [np.flatnonzero(owner == client) for client in range(num_clients)]


def split_writers(writers: np.ndarray, over: int) -> tuple[np.ndarray, int]:
    """Writers with more than `over` samples count as two, who take turns: new ids per sample, and how many were split.

    So that there can be more clients than writers.
    """
    ids, own, counts = np.unique(writers, return_inverse=True, return_counts=True)
    order = np.argsort(own, kind="stable")
    rank = np.empty(len(writers), np.int64)  # which of its writer's samples each one is
    rank[order] = np.arange(len(writers)) - np.repeat(np.cumsum(counts) - counts, counts)
    large = counts > over
    return 2 * own + np.where(large[own], rank % 2, 0), int(large.sum())


def with_too_few(parts: Clients, least: int, noun: str = "images") -> str:
    """`client 3 has 7 images, client 5 has 0 images`, at most three of them; clients count from 0."""
    few = [(client, len(part)) for client, part in enumerate(parts) if len(part) < least]
    text = ", ".join(f"client {client} has {size} {noun}" for client, size in few[:3])
    return text + (f" and {len(few) - 3} more have too few" if len(few) > 3 else "")


# --- the choices ---


def _deal_iid(
    pool: Pool, cfg: Any, clients: int, least: int, rng: np.random.Generator
) -> tuple[Clients, dict[str, Any]]:
    return iid(len(pool.labels), clients, rng), {}


def _deal_dirichlet(
    pool: Pool, cfg: Any, clients: int, least: int, rng: np.random.Generator
) -> tuple[Clients, dict[str, Any]]:
    parts, draws = dirichlet(pool.labels, clients, cfg.alpha, least, rng, pool.noun)
    return parts, {"alpha": float(cfg.alpha), "draws": draws}


def _deal_labels(
    pool: Pool, cfg: Any, clients: int, least: int, rng: np.random.Generator
) -> tuple[Clients, dict[str, Any]]:
    parts = labels_per_client(pool.labels, clients, cfg.labels_per_client, rng)
    return parts, {"labels_per_client": int(cfg.labels_per_client)}


def _deal_fedmp(
    pool: Pool, cfg: Any, clients: int, least: int, rng: np.random.Generator
) -> tuple[Clients, dict[str, Any]]:
    parts = fedmp(pool.labels, clients, cfg.fedmp_level, pool.num_classes, rng, pool.noun)
    return parts, {"fedmp_level": int(cfg.fedmp_level)}


def _deal_writer(
    pool: Pool, cfg: Any, clients: int, least: int, rng: np.random.Generator
) -> tuple[Clients, dict[str, Any]]:
    assert pool.writers is not None
    over = cfg.split_writers_over
    if over is None:
        return by_writer(pool.writers, clients), {}
    units, split_in_two = split_writers(pool.writers, over)
    number = len(np.unique(units))
    if number < clients:
        raise UserError(
            f"data.split_writers_over={over}: makes {number} shares of data.writers={cfg.writers}, "
            f"fewer than clients.number={clients}; every client needs one"
        )
    extra = {"split_writers_over": int(over), "writers_split": split_in_two, "shares": number}
    return by_writer(units, clients, even=True), extra


def _plugin(name: str, function: Any) -> Partition:
    """A user's function of (labels `[N]`, number of clients, generator), see `checked_parts`."""
    if not callable(function):
        raise wrong("config.data.partition", name, function, "a function of labels, number of clients and generator")

    def deal(
        pool: Pool, cfg: Any, clients: int, least: int, rng: np.random.Generator
    ) -> tuple[Clients, dict[str, Any]]:
        return checked_parts(name, function, pool.labels, clients, rng, pool.noun), {}

    return Partition(deal)


# the choices of `data.partition`
PARTITIONS: Registry[Partition] = Registry(
    "data.partition",
    {
        "iid": Partition(_deal_iid),
        "dirichlet": Partition(_deal_dirichlet, by_label=True),
        "labels": Partition(_deal_labels, by_label=True),
        "writer": Partition(_deal_writer, chosen_writers=True, splits_writers=True),
        "writer_iid": Partition(_deal_iid, chosen_writers=True),
        "fedmp": Partition(_deal_fedmp, by_label=True),
    },
    _plugin,
)
