"""FedRep, Collins et al. 2021, Algorithm 1: head epochs with the body fixed, then body epochs with the head fixed."""

import copy

from .common import Problem, Result, State, average, copies, load, state, train


def run(problem: Problem, head_epochs: int, body_epochs: int, average_head: bool) -> Result:
    server = copy.deepcopy(problem.module)
    own = copies(problem.module, len(problem.x))  # of which only the head lasts from round to round
    for round, cohort in enumerate(problem.cohorts):
        uploads = []
        for client in cohort:
            local = own[client]
            load(local, _part(state(server), head=False))
            batches = problem.batches(round, client, "contribute", head_epochs + body_epochs)
            for half, epochs in ((True, batches[:head_epochs]), (False, batches[head_epochs:])):
                moving = [p for name, p in local.named_parameters() if name.startswith("head.") == half]
                train(problem, round, client, local, epochs, parameters=moving)
            uploads.append(state(local))
        load(server, average(uploads, [problem.weight[client] for client in cohort]))
    heads = [_part(state(local), head=True) for local in own]
    body = _part(state(server), head=False)
    return Result(state(server) if average_head else body, heads, [{**body, **head} for head in heads])


def _part(values: State, head: bool) -> State:
    return {name: leaf for name, leaf in values.items() if name.startswith("head.") == head}
