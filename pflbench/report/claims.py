"""The paper's claims against finished runs: supported, not supported or inconclusive, with intervals and seeds.

``paper_figures/claims.yaml`` says what each claim compares. Verdicts rest on Student's t over paired differences, one
per seed; the nested bootstrap stands beside it, but is not calibrated at few seeds (see ``stats``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from pflbench.clock import replay
from pflbench.clock.fleet import FLEETS
from pflbench.clock.timeline import gain
from pflbench.core.errors import BadInput
from pflbench.core.fields import Declared
from pflbench.core.reading import read_yaml
from pflbench.core.streams import stream
from pflbench.report import finished, stats
from pflbench.report.figures import accuracy
from pflbench.report.finished import Run, Study
from pflbench.report.stats import EffectSize, Floats, Interval, Verdict
from pflbench.study import grid
from pflbench.study.grid import FIGURES

LEAST = 3  # seeds; fewer decide nothing
ALPHA = 0.05
Measure = Literal["GM", "PM", "gain", "bands"]


class _File(Declared, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Side(_File):
    """Runs of one row of a figure, one per seed. tuned: fields whose values are chosen on the other seeds; among: the
    values that may be chosen, where it is one field.
    """

    label: str
    fields: dict[str, Any] = {}
    tuned: list[str] = []
    among: list[Any] | None = None


class Contrast(_File):
    """a - b, or a alone; ``measures`` overrides the claim's."""

    a: Side
    b: Side | None = None
    measures: list[Measure] | None = None


class Claim(_File):
    """A sentence of the paper and what decides it. reported: the paper's own number, if someone has read it off."""

    text: str
    figure: str
    measures: list[Measure]
    contrasts: list[Contrast] = Field(min_length=1)
    threshold: float
    reported: Any = None


@dataclass(frozen=True)
class Finding:
    """One contrast. interval: t over seeds, 95 %. bootstrap: clients nested in seeds, accuracies only. p: two-sided
    permutation over seeds, Holm over the claim. verdict: of this contrast alone; never "supported" by a diverged run.
    """

    setting: str
    measure: str
    a: str
    b: str
    interval: Interval
    together: Interval  # at 95 % over all contrasts of the claim
    bootstrap: Interval | None
    p: float | None
    effect: EffectSize | None
    verdict: Verdict
    runs: tuple[str, ...]
    diverged: tuple[str, ...] = ()  # those of the runs that did


@dataclass(frozen=True)
class Judgement:
    """What the runs say of a claim. note: why it is not decided, or what a narrowed study left out."""

    id: str
    claim: Claim
    verdict: Verdict
    seeds: int
    findings: tuple[Finding, ...]
    note: str = ""

    @property
    def decisive(self) -> Finding | None:
        """The contrast that speaks most against the claim."""
        return min(self.findings, key=lambda each: each.interval.mean, default=None)

    @property
    def failing(self) -> list[Finding]:
        """The contrasts that do not support the claim."""
        return [each for each in self.findings if each.verdict != "supported"]


def read(path: Path = FIGURES / "claims.yaml") -> dict[str, Claim]:
    """The claims by their names. Raises BadInput."""
    return {name: grid.checked(Claim, value, f"claim {name}") for name, value in read_yaml(path).items()}


def judge_all(scale: str, results: Path, figures: Sequence[str] | None = None, root: Path = FIGURES) -> list[Judgement]:
    """Every claim; one whose figure is not among ``figures`` is inconclusive. Raises BadInput if a run is missing."""
    judgements = []
    for name, claim in read(root / "claims.yaml").items():
        if figures is not None and claim.figure not in figures:
            judgements.append(
                Judgement(name, claim, "inconclusive", 0, (), f"figure {claim.figure} is not in this study")
            )
        else:
            judgements.append(judge(name, claim, finished.load(claim.figure, scale, results, root)))
    return judgements


def judge(name: str, claim: Claim, study: Study) -> Judgement:
    """The verdict on one claim."""
    pairs = list(_pairs(claim, study))
    if not pairs:
        return Judgement(
            name, claim, "inconclusive", study.seeds, (), "the rows that it compares are not in this study"
        )
    if study.seeds < 2:
        return Judgement(name, claim, "inconclusive", study.seeds, (), "one seed has no interval")
    differences = [pair.values for pair in pairs]
    p_values = [_p_value(pair) for pair in pairs]
    known = stats.holm(np.array([p for p in p_values if p is not None])) if any(p_values) else np.zeros(0)
    adjusted = iter(known)
    distinct = len({(pair.setting, pair.measure, tuple(pair.values)) for pair in pairs})  # equal ones are one test
    findings = []
    for number, (pair, values) in enumerate(zip(pairs, differences, strict=True)):
        interval = stats.seed_interval(values)
        behind = [*pair.a, *pair.b]
        lost = tuple(dict.fromkeys(run.address for run in behind if run.record["diverged"] is not None))
        own = stats.verdict(interval, claim.threshold)
        findings.append(
            Finding(
                pair.setting,
                pair.measure,
                pair.a_name,
                pair.b_name,
                interval,
                stats.seed_interval(values, level=1 - ALPHA / distinct),
                _bootstrap(pair, stream("bootstrap", name, number)),
                None if p_values[number] is None else float(next(adjusted)),
                stats.effect_size(values, np.zeros_like(values)) if len(values) > 2 and pair.b else None,
                "inconclusive" if lost and own == "supported" else own,
                tuple(dict.fromkeys(run.address for run in behind)),
                lost,
            )
        )
    overall, missing = _overall(findings, claim.threshold, study.seeds), _left_out(claim, study)
    if missing and overall == "supported":
        overall = "inconclusive"  # what was left out might speak against it
    notes = [f"narrowed: {', '.join(missing)} left out"] if missing else []
    gone = sorted({address for each in findings for address in each.diverged})
    if gone:
        count = len({address for each in findings for address in each.runs})
        notes.append(f"rests on runs that diverged, {len(gone)}/{count}: {', '.join(gone)}")
    return Judgement(name, claim, overall, study.seeds, tuple(findings), "; ".join(notes))


def _left_out(claim: Claim, study: Study) -> list[str]:
    """Rows that the claim compares and settings that its figure has, which this study was narrowed not to hold."""
    sides = [side.label for each in claim.contrasts for side in (each.a, each.b) if side is not None]
    rows = [row for row in study.left_out.get("rows", ()) if row in sides or "others" in sides]
    return [*(study.titles.get(row, row) for row in rows), *study.left_out.get("settings", ())]


def _overall(findings: Sequence[Finding], threshold: float, seeds: int) -> Verdict:
    if seeds < LEAST:
        return "inconclusive"
    if all(each.verdict == "supported" for each in findings):
        return "supported"
    denied = any(stats.verdict(each.together, threshold) == "not supported" for each in findings)
    return "not supported" if denied else "inconclusive"


@dataclass(frozen=True)
class _Pair:
    """Runs to compare, one per seed on each side; ``b`` may be empty. values: [S], a - b or a."""

    setting: str
    measure: str
    a_name: str
    b_name: str
    a: list[Run]
    b: list[Run]
    values: Floats


def _pairs(claim: Claim, study: Study) -> Iterator[_Pair]:
    for setting in study.settings:
        for contrast in claim.contrasts:
            others = [label for label in study.labels if label != contrast.a.label]
            b = contrast.b
            sides = [b]
            if b is not None and b.label == "others":
                sides = [b.model_copy(update={"label": label}) for label in others]
            for side in sides:
                if any(each is not None and each.label not in study.labels for each in (contrast.a, side)):
                    continue
                for measure in contrast.measures or claim.measures:
                    for exact in FLEETS.names() if measure == "gain" else [""]:
                        pair = _pair(study, setting, contrast.a, side, measure, exact)
                        if pair is not None:
                            yield pair


def _pair(study: Study, setting: str, a: Side, b: Side | None, measure: Measure, fleet: str) -> _Pair | None:
    """None if one side has no such model."""
    try:
        mine, theirs = (_runs(study, setting, side, measure) if side else [] for side in (a, b))
    except LookupError:
        return None
    values = np.array([value(run, measure, fleet) for run in mine])
    if b is not None:
        values -= np.array([value(run, measure, fleet) for run in theirs])
    title = f"{measure} on fleet {fleet}" if fleet else measure
    return _Pair(study.settings[setting], title, _name(a, study), _name(b, study) if b else "", mine, theirs, values)


def _name(side: Side, study: Study) -> str:
    told = [study.titles.get(side.label, side.label)]
    told += [f"{name.split('.')[-1]}={value:g}" for name, value in side.fields.items()]
    return " ".join([*told, "(tuned)"] if side.tuned else told)


def _runs(study: Study, setting: str, side: Side, measure: Measure) -> list[Run]:
    """One run per seed. Raises LookupError if the method has no such model."""
    asked = {"label": side.label, "setting": setting, **side.fields}
    if not side.tuned:
        found = study.collect(**asked)
    else:
        choices = [one for one in study.points(side.tuned, **asked) if side.among is None or one[0] in side.among]
        if not choices:
            raise BadInput("claim", f"{side.label}, {', '.join(side.tuned)}", f"no run with one of {side.among}")
        table = [study.collect(**asked, **dict(zip(side.tuned, choice, strict=True))) for choice in choices]
        found = tuned(table, np.array([[value(run, measure) for run in row] for row in table]))
    if any(np.isnan(value(run, measure, FLEETS.names()[0])) for run in found):
        raise LookupError(measure)
    return found


def tuned(table: Sequence[Sequence[Run]], values: Floats) -> list[Run]:
    """For each seed the run whose choice is best on the mean of the *other* seeds. table, values: [choices, S]"""
    seeds = values.shape[1]
    if seeds == 1:
        return [table[0][0]]
    others = (values.sum(1, keepdims=True) - values) / (seeds - 1)  # [choices, S]
    return [table[int(others[:, seed].argmax())][seed] for seed in range(seeds)]


def value(run: Run, measure: Measure, fleet: str = "") -> float:
    """One number of one run; NaN where a method has no such model."""
    if measure == "gain":
        return gain(replay.replay(run.record, fleet, seed=run.seed))
    if measure == "bands":
        frame = pd.read_csv(run.extra("bands"))
        last = frame[frame["round"] == frame["round"].max()]
        plain, shuffled = (last[last["permuted"] == each]["relative"].to_numpy(float) for each in (0, 1))
        return doublings(plain) - doublings(shuffled)
    found = accuracy(run, measure)
    return float("nan") if found is None else found


def doublings(relative: Floats) -> float:
    """log2 of the divergence in the highest quarter of the bands over that in the lowest. relative: [bands]"""
    quarter = len(relative) // 4
    return float(np.log2(relative[-quarter:].mean() / relative[:quarter].mean()))


def _p_value(pair: _Pair) -> float | None:
    if not pair.b:
        return None
    rng = stream("permutation", pair.a_name, pair.b_name)
    return stats.permutation_test(pair.values, np.zeros_like(pair.values), alternative="two-sided", rng=rng)


def _bootstrap(pair: _Pair, rng: np.random.Generator) -> Interval | None:
    """Clients nested in seeds; for GM the official test set is the one client."""
    if not pair.b or pair.measure not in ("GM", "PM"):
        return None
    gm = pair.measure == "GM"
    a, b = (
        np.array(
            [[r["curve"]["official"][-1]] if gm else r["curve"]["personal"][-1] for r in (run.record for run in side)]
        )
        for side in (pair.a, pair.b)
    )
    tested = [[r["clients"]["official"]] if gm else r["clients"]["test"] for r in (run.record for run in pair.a)]
    return stats.paired_difference(a, b, np.array(tested), rng=rng)


def frame_of(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """One row per contrast, for a CSV file."""
    rows = []
    for each in judgements:
        for one in each.findings:
            boot, effect = one.bootstrap, one.effect
            rows.append(
                {
                    "claim": each.id,
                    "claim_verdict": each.verdict,
                    "setting": one.setting,
                    "measure": one.measure,
                    "a": one.a,
                    "b": one.b,
                    "threshold": each.claim.threshold,
                    "mean": one.interval.mean,
                    "low": one.interval.low,
                    "high": one.interval.high,
                    "verdict": one.verdict,
                    "low_together": one.together.low,
                    "high_together": one.together.high,
                    "bootstrap_low": boot and boot.low,
                    "bootstrap_high": boot and boot.high,
                    "p_holm": one.p,
                    "g_z": effect and effect.g_z,
                    "seeds": each.seeds,
                    "runs": " ".join(one.runs),
                }
            )
    return pd.DataFrame(rows)
