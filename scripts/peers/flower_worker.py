"""Runs FedAvg in Flower: its own strategy on the simulation engine, with one Ray actor of one thread for each core."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

# the Ray actors read these
os.environ["PEERS_WORK"] = sys.argv[1]
os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent)

import flwr  # noqa: E402
import torch  # noqa: E402
from common import Work, channel, serve  # noqa: E402
from flower_client import app  # noqa: E402
from flwr.app import ArrayRecord  # noqa: E402
from flwr.serverapp import ServerApp  # noqa: E402
from flwr.serverapp.strategy import FedAvg  # noqa: E402
from flwr.simulation import run_simulation  # noqa: E402
from nets import Images, Net, accuracy  # noqa: E402


def main() -> None:
    answers, work = channel(), Work(sys.argv[1])
    server, share = ServerApp(), work.cohort / work.users

    @server.main()
    def converse(grid: Any, context: Any) -> None:
        torch.set_num_threads(work.threads)
        images, model = Images(work), Net(work.net).take(work.params)
        arrays, number = ArrayRecord(model.state_dict()), 0
        strategy = FedAvg(
            fraction_train=share, fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=work.users
        )

        def work_round() -> float:
            nonlocal arrays, number
            config = flwr.app.ConfigRecord({"number": number})
            result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=1, train_config=config)
            arrays, number = result.arrays, number + 1
            return result.train_metrics_clientapp[1]["loss"]  # missing if clients failed

        def evaluate() -> float:
            model.load_state_dict(arrays.to_torch_state_dict())
            return accuracy(model, images)

        serve(answers, {"flwr": flwr.__version__, "torch": torch.__version__}, work_round, evaluate)

    run_simulation(
        server_app=server,
        client_app=app,
        num_supernodes=work.users,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": work.threads, "include_dashboard": False},
        },
    )


if __name__ == "__main__":
    main()
