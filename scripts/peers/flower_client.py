"""The client of the Flower worker, in its own module so that each Ray actor imports it once and keeps its data."""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
from common import Work
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from nets import Images, Net, local_round

app = ClientApp()


@functools.cache
def loaded() -> tuple[Work, Images, Net]:
    """Loads workload, images and network, once in each actor."""
    torch.set_num_threads(1)
    work = Work(os.environ["PEERS_WORK"])
    return work, Images(work), Net(work.net)


@app.train()
def train(message: Message, context: Any) -> Message:
    """Trains one client for one local round."""
    work, images, model = loaded()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    user, number = int(context.node_config["partition-id"]), int(message.content["config"]["number"])
    loss = local_round(model, images, work.rows(user, number), work.lr)
    metrics = MetricRecord({"loss": loss, "num-examples": work.steps * work.batch_size})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)
