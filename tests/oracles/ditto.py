"""Ditto, Li et al. 2021, Algorithm 1: FedAvg for w; v_k <- v_k - eta (g(v_k) + lam (v_k - w)), w as received."""

import copy

from .common import Problem, Result, average, copies, load, squared_distance, state, train


def run(problem: Problem, lam: float, personal_epochs: int) -> Result:
    server = copy.deepcopy(problem.module)
    personal = copies(problem.module, len(problem.x))
    for round, cohort in enumerate(problem.cohorts):
        uploads = []
        for client in cohort:
            local = copy.deepcopy(server)
            train(problem, round, client, local, problem.batches(round, client, "contribute", problem.epochs))
            uploads.append(state(local))
            batches = problem.batches(round, client, "personalise", personal_epochs)
            train(problem, round, client, personal[client], batches, lambda v: lam / 2 * squared_distance(v, server))
        load(server, average(uploads, [problem.weight[client] for client in cohort]))
    models = [state(module) for module in personal]
    return Result(state(server), models, models)
