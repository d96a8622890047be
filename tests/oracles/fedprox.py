"""FedProx, Li et al. 2020, Algorithm 2: the client minimises F_k(u) + mu/2 ||u - w||^2, w as received."""

import copy

from .common import Problem, Result, average, load, squared_distance, state, train


def run(problem: Problem, mu: float) -> Result:
    server = copy.deepcopy(problem.module)
    for round, cohort in enumerate(problem.cohorts):
        uploads = []
        for client in cohort:
            local = copy.deepcopy(server)
            batches = problem.batches(round, client, "contribute", problem.epochs)
            train(problem, round, client, local, batches, lambda u: mu / 2 * squared_distance(u, server))
            uploads.append(state(local))
        load(server, average(uploads, [problem.weight[client] for client in cohort]))
    return Result(state(server), [{} for _ in problem.x], None)
