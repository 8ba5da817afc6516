"""docs/library.md is run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.thorough
def test_the_script_in_the_library_page_trains_its_own_environment_with_its_own_algorithm(tmp_path: Path) -> None:
    page = (ROOT / "docs/library.md").read_text()
    files = dict(re.findall(r"^## [^`\n]*`(\w+\.py)`.*?```python\n(.*?)```", page, flags=re.DOTALL | re.MULTILINE))
    assert set(files) == {"reach.py", "reward_weighted.py", "my_run.py"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    script = [line for line in files["my_run.py"].splitlines() if line and not line.startswith(("from", "import"))]
    assert len(script) <= 25

    result = subprocess.run(
        [sys.executable, "my_run.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=90,
    )

    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    found = re.search(r"2000 updates, (\d+) steps, mean return with noise (-[\d.]+)", result.stdout)
    assert found, result.stdout
    assert float(found[2]) > -0.6  # noise alone costs 0.35; a policy that has learnt nothing has -1.0
