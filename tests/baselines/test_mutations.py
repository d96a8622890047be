"""Every defect of ``mutations.py`` is caught, and the page that says so is its output. Half a minute on one core."""

import os
import subprocess
import sys
from pathlib import Path

import mutations

PAGE = mutations.ROOT / "docs" / "mutations.md"


def test_all_18_defects_are_listed():
    assert {mutation.number for mutation in mutations.MUTATIONS} == set(range(1, 19))


def test_every_defect_is_caught():
    command = [sys.executable, str(Path(mutations.__file__)), "--markdown"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout == PAGE.read_text(encoding="utf-8"), "run python tests/mutations.py --markdown into that page"
