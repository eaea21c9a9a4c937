"""Runs FedAvg as a plain PyTorch loop: one client after another, each with all cores."""

from __future__ import annotations

import itertools
import sys

import torch
from common import Work, channel, serve
from nets import Images, Mean, Net, accuracy, local_round


def main() -> None:
    answers, work = channel(), Work(sys.argv[1])
    torch.set_num_threads(work.threads)
    images, model, rounds = Images(work), Net(work.net), itertools.count()
    server = {key: value.clone() for key, value in model.take(work.params).state_dict().items()}

    def work_round() -> float:
        number, losses = next(rounds), []
        mean = Mean(model)
        for user in work.draw(number):
            model.load_state_dict(server)
            losses.append(local_round(model, images, work.rows(user, number), work.lr))
            mean.add(model, 1 / work.cohort)
        server.update(mean.sum)
        return sum(losses) / len(losses)

    def evaluate() -> float:
        model.load_state_dict(server)
        return accuracy(model, images)

    serve(answers, {"torch": torch.__version__}, work_round, evaluate)


if __name__ == "__main__":
    main()
