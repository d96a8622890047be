"""The report: verdicts in one size, no network, every number traced to its runs."""

import base64
import json
import re
import shutil
import subprocess
import sys

import pytest
from studies import FIGURES, ROOT, folder, rows_of, stored

from pflbench.core.errors import BadInput
from pflbench.report import claims, figures, page
from pflbench.study import grid


@pytest.fixture(scope="module")
def opened(tmp_path_factory, finished):
    """A report on synthetic runs: the accuracy figure and every claim."""
    here = tmp_path_factory.mktemp("report")
    root = folder(here / "paper_figures")
    shutil.copytree(FIGURES / "accuracy", root / "accuracy", ignore=shutil.ignore_patterns("out"))
    shutil.copy(FIGURES / "claims.yaml", root)
    methods = {"spectral": (0.8, 0.9, 0.7), "ditto": (0.91, 0.92, 0.93), "fedavg": (0.5, 0.6, 0.4)}
    runs = [stored(run) for name, values in methods.items() for run in rows_of(name, values)]
    for run in runs:
        path = here / "results" / run.label / f"{run.address}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(run.record))
    own = ("label", "setting", "seed", "address")
    manifest = {
        "figure": "accuracy",
        "scale": "tiny",
        "seeds": 3,
        "title": "Accuracy",
        "category": "Accuracy",
        "caption": "A caption.",
        "settings": {"even": "Even"},
        "titles": {},
        "runs": [{**{name: getattr(run, name) for name in own}, "method": run.label} for run in runs],
    }
    path = grid.out_folder("accuracy", "tiny", root) / "runs.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(manifest))
    figures.produce("accuracy", "tiny", here / "results", root)
    page.write(here / "report.html", "tiny", here / "results", root=root)
    return here / "report.html", runs


def test_the_report_says_every_verdict_in_the_same_size(opened):
    text = opened[0].read_text()
    for name, claim in claims.read(FIGURES / "claims.yaml").items():
        assert f'id="claim-{name}"' in text
        assert claim.text.replace("'", "&#39;") in text
    words = re.findall(r'<span class="word">. ([a-z ]+)</span>', text)
    assert len(words) == 8
    assert set(words) <= {"supported", "not supported", "inconclusive"}
    assert not re.search(r"\.(supported|not-supported|inconclusive)[^{]*\{[^}]*font-size", text)


def test_the_report_needs_no_network_and_links_every_number_to_its_runs(opened):
    text = opened[0].read_text()
    assert not re.search(r'(src|href)="(?!#|data:)', text)
    assert "@import" not in text
    kind, image = re.search(r'src="data:image/(svg\+xml|png);base64,([^"]+)"', text).groups()
    assert (b"<svg" if kind == "svg+xml" else b"PNG") in base64.b64decode(image)[:2000]
    for run in opened[1]:
        assert f'id="run-{run.address}"' in text
        assert text.count(f'href="#run-{run.address}"') >= 2
    assert set(re.findall(r'href="#run-([0-9a-f]+)"', text)) <= set(re.findall(r'id="run-([0-9a-f]+)"', text))


def test_a_report_of_other_runs_than_were_drawn_is_refused(opened, tmp_path):
    """Two seeds in the manifest, three in the figure on disk."""
    shutil.copytree(opened[0].parent, tmp_path / "copy")
    root = tmp_path / "copy" / "paper_figures"
    path = grid.out_folder("accuracy", "tiny", root) / "runs.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "seeds": 2, "runs": [r for r in manifest["runs"] if r["seed"] < 2]}))
    with pytest.raises(BadInput, match="was drawn from other runs; `pflbench figure accuracy --scale tiny`"):
        page.write(tmp_path / "report.html", "tiny", tmp_path / "copy" / "results", root=root)
    assert not (tmp_path / "report.html").exists()


def test_the_report_opens_and_sorts_in_a_browser(opened, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine: the page is not opened")
    sort = "document.querySelectorAll('#table ~ .scroll thead tr.keys th')[1].click();"
    path = tmp_path / "page.html"
    path.write_text(opened[0].read_text().replace("reveal();\n</script>", f"reveal();\n{sort}\n</script>"))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    found = subprocess.run(
        [*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=60, check=True
    )
    table = found.stdout[found.stdout.index('id="table"') :]
    methods = re.findall(r"<tr><td>([^<]+)</td>", table[: table.index("</table>")])
    assert methods == ["FedAvg", "Spectral", "Ditto"]  # by accuracy of the GM, lowest first
    assert 'aria-sort="ascending"' in table


def test_readers_of_results_do_not_need_torch():
    code = "import sys; from pflbench.report import claims, page, style; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_figures_do_not_import_torch():
    for path in FIGURES.glob("*/figure.py"):
        assert "torch" not in path.read_text(), path
