"""Print how long starting takes: seconds of `import bytelm`, of the help and of a quick command, each in processes of
its own, the fastest and the median of several.
"""

import statistics
import subprocess
import sys
import time

REPEATS = 9
CODES = {
    "python alone": "",
    "import numpy": "import numpy",
    "import bytelm": "import bytelm",
    "bytelm --help": "import sys; from bytelm.cli import main; sys.exit(main(['--help']))",
    "bytelm encoding show": "import sys; from bytelm.cli import main; sys.exit(main(['encoding', 'show', '月']))",
}


def seconds(code: str) -> float:
    """How long a process takes that runs ``code``."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    for name, code in CODES.items():
        times = [seconds(code) for _ in range(REPEATS)]
        print(f"{name:22}{min(times):7.3f} s{statistics.median(times):7.3f} s")
