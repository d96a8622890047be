"""The accuracy table: never the best round, no winner without support; the CSV is what is drawn."""

import pandas as pd
import pytest
from studies import FIGURES, accuracy_frame, made, rows_of, study_of

from pflbench.core.errors import BadInput
from pflbench.report import figures


def test_the_best_round_is_never_reported():
    """Mutation 17: every synthetic curve passes through 100 % and ends lower."""
    run = made("ditto", 0, gm=0.5, pm=0.6)
    assert figures.accuracy(run, "GM") == 0.5
    assert figures.accuracy(run, "PM") == 0.6
    module = figures.load_module(FIGURES / "accuracy" / "figure.py")
    frame = module.table(study_of(rows_of("ditto", (0.5, 0.5, 0.5)) + rows_of("fedavg", (0.6, 0.6, 0.6))))
    assert frame["mean"].max() == 0.6


def test_nothing_is_bold_without_support():
    module, frame = accuracy_frame(spectral=(0.7, 0.9, 0.8), ditto=(0.75, 0.79, 0.8), fedavg=(0.1, 0.11, 0.12))
    marks = dict(zip(frame[frame["model"] == "PM"]["method"], frame[frame["model"] == "PM"]["mark"], strict=True))
    assert marks == {"spectral": "tied", "ditto": "tied", "fedavg": ""}
    assert "mathbf" not in module.latex(frame)
    assert module.latex(frame).count(r"\dagger") == 4


def test_a_clear_winner_is_bold():
    module, frame = accuracy_frame(spectral=(0.9, 0.91, 0.92), ditto=(0.7, 0.71, 0.72), fedavg=(0.1, 0.11, 0.12))
    assert list(frame[frame["mark"] == "best"]["method"]) == ["spectral", "spectral"]
    text = module.latex(frame)
    assert text.count("mathbf") == 2
    assert r"\toprule" in text
    assert r"\dagger" not in text
    ranks = frame.drop_duplicates(["method", "model"]).set_index(["method", "model"])["rank"]
    assert ranks["spectral", "GM"] == 1
    assert ranks["fedavg", "PM"] == 3


def test_one_seed_gives_no_winner():
    module = figures.load_module(FIGURES / "accuracy" / "figure.py")
    runs = [made("spectral", 0, 0.9, 0.9), made("ditto", 0, 0.1, 0.1)]
    frame = module.table(study_of(runs, seeds=1))
    assert set(frame["mark"]) == {"tied"}
    assert frame["low"].isna().all()


def test_the_interval_of_the_table_is_students():
    row = figures.estimate([made("ditto", seed) for seed in range(3)], (0.7, 0.8, 0.9))
    assert row["mean"] == pytest.approx(0.8)
    assert row["high"] - row["mean"] == pytest.approx(4.302653 * 0.1 / 3**0.5)  # t at 2 degrees of freedom
    assert len(row["runs"].split()) == 3


def test_the_csv_is_what_is_drawn(tmp_path):
    module, frame = accuracy_frame(spectral=(0.9, 0.91, 0.92), ditto=(0.88, 0.89, 0.9), fedprox=(0.5, 0.51, 0.52))
    path = tmp_path / "accuracy.csv"
    figures.write_csv(frame, path)
    back = figures.read_csv(path)
    pd.testing.assert_frame_equal(back.fillna(""), frame.fillna(""), check_dtype=False, check_exact=True)
    axes = module.plot(back).axes
    drawn = {float(line.get_xdata()[0]) for ax in axes for line in ax.lines if len(line.get_xdata()) == 1}
    assert {0.89, 0.91} <= drawn
    assert 0.51 not in drawn  # far behind: told in words
    assert any("51.0" in text.get_text() for ax in axes for text in ax.texts)


def test_lines_pass_through_the_numbers_of_the_csv():
    module = figures.load_module(FIGURES / "truncation" / "figure.py")
    runs = rows_of("default", (0.5, 0.6, 0.7), method="spectral", tau=0.4)
    for number, tau in enumerate((0.1, 0.4, 1.0)):
        for keep in ("low", "high", "random", "matrix", "prefix"):
            if tau < 1 or keep in ("low", "matrix"):
                values = [0.5 + 0.1 * number + 0.01 * seed * len(keep) for seed in range(3)]
                runs += rows_of(keep, values, method="spectral", tau=tau, keep="low" if keep == "matrix" else keep)
    frame = module.table(study_of(runs, "truncation"))
    lines = {
        (model, line.get_label()): line.get_ydata()
        for model, ax in zip(("GM", "PM"), module.plot(frame).axes, strict=True)
        for line in ax.lines
    }
    for keep, look in module.KEEPS.items():
        for model in ("GM", "PM"):
            own = frame[(frame["keep"] == keep) & (frame["model"] == model)].sort_values("tau")
            assert list(own["tau"]) == [0.1, 0.4, 1.0]  # at 1 every control is the same experiment
            assert list(lines[model, look.title]) == list(own["mean"])
            assert own["mean"].iloc[-1] == 0  # differences to ratio 1


def test_a_table_without_runs_is_refused(tmp_path):
    with pytest.raises(BadInput, match="every row the runs behind it"):
        figures.write_csv(pd.DataFrame({"mean": [1.0], "runs": [""]}), tmp_path / "x.csv")
