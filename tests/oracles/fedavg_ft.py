"""FedAvg with fine-tuning: after the last round every client trains the generic model on its own data."""

import copy

from . import fedavg
from .common import Problem, Result, load, state, train


def run(problem: Problem, ft_epochs: int, head_only: bool) -> Result:
    trained = fedavg.run(problem)
    last = len(problem.cohorts)
    deployed = []
    for client in range(len(problem.x)):
        tuned = copy.deepcopy(problem.module)
        load(tuned, trained.server)
        moving = [p for name, p in tuned.named_parameters() if name.startswith("head.") or not head_only]
        train(problem, last, client, tuned, problem.batches(last, client, "adapt", ft_epochs), parameters=moving)
        deployed.append(state(tuned))
    return Result(trained.server, trained.clients, deployed)
