"""Local-only: a client drawn into the cohort trains its own model for E epochs; nothing is sent."""

from .common import Problem, Result, copies, state, train


def run(problem: Problem) -> Result:
    own = copies(problem.module, len(problem.x))
    for round, cohort in enumerate(problem.cohorts):
        for client in cohort:
            train(problem, round, client, own[client], problem.batches(round, client, "personalise", problem.epochs))
    models = [state(module) for module in own]
    return Result({}, models, models)
