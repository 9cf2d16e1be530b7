"""A short run of scripts/torture.py: renders killed at random moments come out as uninterrupted ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "torture.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks, which this system cannot")
@pytest.mark.parametrize(
    ("which", "kills", "kinds"), [("KILL", 12, ["video", "lanes", "sequence"]), ("TERM", 3, ["gif"])]
)
def test_kills_lose_nothing(which, kills, kinds):
    command = [sys.executable, str(SCRIPT), "--kills", str(kills), "--signal", which, "--seed", "7", "--json"]
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run([*command, "--kinds", *kinds], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kills"] == kills
    assert report["frames"] == 16 * report["renders"] > 0
    assert sum(report["killed_by"].values()) == kills
