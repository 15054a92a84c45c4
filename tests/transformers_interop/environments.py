"""Environments with one version of transformers each, without bytelm: ``python environments.py 4.56.* 5.*``.

They are made below ``BYTELM_ENVIRONMENTS``, by default ``~/.cache/bytelm/environments``; one that is there stays.
"""

import os
import subprocess
import sys
from pathlib import Path

VERSIONS = ("4.56.*", "5.*")
"""The version that the reference model was tested with, and the newest."""

_CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def python_of(version):
    """The interpreter of the environment with this version, whether it is there or not."""
    default = Path.home() / ".cache" / "bytelm" / "environments"
    root = Path(os.environ.get("BYTELM_ENVIRONMENTS", default))
    return root / f"transformers-{version.removesuffix('.*')}" / "bin" / "python"


def make(version):
    """Make an environment: torch first and alone, for its pin is the CPU build."""
    python = python_of(version)
    if (python.parents[1] / ".done").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(python.parents[1])], check=True)
    pinned = next(line for line in _CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))
    for packages in ([pinned], [f"transformers=={version}", "accelerate", "safetensors", "numpy"]):
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    (python.parents[1] / ".done").touch()


if __name__ == "__main__":
    for wanted in sys.argv[1:] or VERSIONS:
        make(wanted)
