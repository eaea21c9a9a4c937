"""Runs FedAvg in PyTorch with one process for each core, which trains its share of the clients on one thread.

The server model and the sum of each process are in shared memory; only the users' numbers and losses go through pipes.
"""

from __future__ import annotations

import itertools
import sys
from multiprocessing.connection import Connection

import torch
import torch.multiprocessing as mp
from common import Work, channel, serve
from nets import Images, Mean, Net, accuracy, local_round

State = dict[str, torch.Tensor]


def child(file: str, pipe: Connection, server: State, total: State) -> None:
    """Trains the users that `pipe` names until it is closed; leaves the weighted sum of their models in `total`."""
    torch.set_num_threads(1)
    work = Work(file)
    images, model = Images(work), Net(work.net)
    while True:
        try:
            number, users = pipe.recv()
        except EOFError:
            return
        losses, mean = [], Mean(model)
        for user in users:
            model.load_state_dict(server)
            losses.append(local_round(model, images, work.rows(user, number), work.lr))
            mean.add(model, 1 / work.cohort)
        for key, value in mean.sum.items():
            total[key].copy_(value)
        pipe.send(losses)


def main() -> None:
    answers, work = channel(), Work(sys.argv[1])
    torch.set_num_threads(work.threads)
    images, model, rounds = Images(work), Net(work.net).take(work.params), itertools.count()

    def shared(state: State) -> State:
        return {key: value.clone().share_memory_() for key, value in state.items()}

    server = shared(model.state_dict())
    totals = [shared(model.state_dict()) for _ in range(work.threads)]
    context, pipes = mp.get_context("spawn"), []
    for total in totals:
        here, there = context.Pipe()
        context.Process(target=child, args=(sys.argv[1], there, server, total), daemon=True).start()
        pipes.append(here)

    def work_round() -> float:
        number = next(rounds)
        users = work.draw(number)
        for k, pipe in enumerate(pipes):
            pipe.send((number, users[k :: len(pipes)]))
        losses = [loss for pipe in pipes for loss in pipe.recv()]
        for key, value in server.items():
            value.copy_(torch.stack([total[key] for total in totals]).sum(0))
        return sum(losses) / len(losses)

    def evaluate() -> float:
        model.load_state_dict(server)
        return accuracy(model, images)

    serve(answers, {"torch": torch.__version__, "processes": work.threads}, work_round, evaluate)


if __name__ == "__main__":
    main()
