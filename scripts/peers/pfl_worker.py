"""Runs FedAvg in pfl-research: its own algorithm and simulated backend; torchrun starts a process for each core."""

from __future__ import annotations

import sys

import numpy as np
import torch
from common import Conversation, Work, channel
from nets import Images, Net, accuracy
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
from pfl.internal.ops.selector import get_framework_module
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from pfl.version import __version__

FOREVER = 10**9


class PflNet(Net):
    """The network with the two methods that pfl requires."""

    def loss(self, x: torch.Tensor, y: torch.Tensor, eval: bool = False) -> torch.Tensor:
        self.eval() if eval else self.train()
        return torch.nn.functional.cross_entropy(self(x), y)

    @torch.no_grad()
    def metrics(self, x: torch.Tensor, y: torch.Tensor, eval: bool = False) -> dict[str, Weighted]:
        return {"loss": Weighted(float(self.loss(x, y, eval)) * len(x), len(x))}


class OnDemand(TrainingProcessCallback):
    """Begins a central iteration when the benchmark requests a round; the first process tells the others."""

    def __init__(self, work: Work, images: Images, net: PflNet) -> None:
        self._images, self._net = images, net
        distributed = get_framework_module().distributed
        self._several, self._first = distributed.world_size > 1, distributed.global_rank == 0
        if self._first:
            about = {"pfl": __version__, "torch": torch.__version__, "processes": distributed.world_size}
            self._conversation = Conversation(channel(), about)

    def _wait(self) -> bool:
        more = self._conversation.wait(lambda: accuracy(self._net, self._images)) if self._first else True
        if self._several:
            told = torch.tensor([int(more)])
            torch.distributed.broadcast(told, 0)
            more = bool(told[0])
        return more

    def on_train_begin(self, *, model: PyTorchModel) -> Metrics:
        self._wait()
        return Metrics()

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        if self._first:
            self._conversation.done(None)
        return not self._wait(), Metrics()


def main() -> None:
    work = Work(sys.argv[1])
    torch.set_num_threads(max(1, work.threads // get_framework_module().distributed.world_size))
    np.random.seed(0)
    images, net = Images(work), PflNet(work.net)
    net.take(work.params)
    x = images.x.float().div_(255)

    def dataset(user: int) -> PyTorchTensorDataset:
        rows = torch.from_numpy(work.index[user])
        return PyTorchTensorDataset((x[rows], images.y[rows]), eval_kwargs={"eval": True})

    users = FederatedDataset(dataset, get_user_sampler("minimize_reuse", list(range(work.users))))
    model = PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), lr=1.0))
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=FOREVER, evaluation_frequency=FOREVER,
            train_cohort_size=work.cohort, val_cohort_size=0,
        ),
        SimulatedBackend(training_data=users, val_data=users),
        model,
        NNTrainHyperParams(
            local_batch_size=work.batch_size, local_num_epochs=None, local_num_steps=work.steps,
            local_learning_rate=work.lr,
        ),
        NNEvalHyperParams(local_batch_size=100),
        callbacks=[OnDemand(work, images, net)],
    )  # fmt: skip


if __name__ == "__main__":
    main()
