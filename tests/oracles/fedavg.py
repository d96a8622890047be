"""FedAvg, McMahan et al. 2017, Algorithm 1: w <- sum_k n_k / n w_k, w_k after E epochs of SGD from w."""

import copy

from .common import Problem, Result, average, load, state, train


def run(problem: Problem) -> Result:
    server = copy.deepcopy(problem.module)
    for round, cohort in enumerate(problem.cohorts):
        uploads = []
        for client in cohort:
            local = copy.deepcopy(server)
            train(problem, round, client, local, problem.batches(round, client, "contribute", problem.epochs))
            uploads.append(state(local))
        load(server, average(uploads, [problem.weight[client] for client in cohort]))
    return Result(state(server), [{} for _ in problem.x], None)
