"""A later frame on a GPU takes few launches and waits, as scripts/count_launches.py counts them without one."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "count_launches.py"


def test_a_later_frame_takes_few_launches_and_three_waits(tmp_path):
    report = tmp_path / "launches.json"
    command = [sys.executable, str(SCRIPT), "--size", "96", "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text(encoding="utf-8"))
    assert set(found) == {"slim, with a look", "slim, without a look", "vgg19"}
    for kind, parts in found.items():  # README: 86 to 96, and 3
        assert 80 < sum(part.get("launches", 0) for part in parts.values()) <= 96, kind
        assert sum(part.get("waits", 0) for part in parts.values()) == 3, kind
