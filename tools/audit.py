"""Ask for known vulnerabilities of the packages that are installed: ``make audit``.

Exit status: 0 where none is known, 1 where there are some, 75 where the database of advisories could not be asked.
"""

import json
import subprocess
import sys

UNREACHABLE = 75
"""EX_TEMPFAIL of sysexits.h: nothing was found out."""


def main() -> int:
    """Run pip-audit and say what it found."""
    options = ["--skip-editable", "--format", "json", "--progress-spinner", "off", "--timeout", "15"]
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", *options, *sys.argv[1:]], capture_output=True, text=True, check=False
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["pip-audit said nothing"]
        print(f"audit: nothing was checked, because pip-audit could not ask for advisories: {said[-1]:.300}")
        return UNREACHABLE
    checked = [package for package in packages if "skip_reason" not in package]
    for package in packages:
        if "skip_reason" in package:
            print(f"{package['name']}: not checked: {package['skip_reason']}")
    for package in checked:
        for known in package["vulns"]:
            fixed = ", ".join(known["fix_versions"]) or "none yet"
            print(f"{package['name']} {package['version']}: {known['id']}, fixed in {fixed}")
    if not checked:
        print("audit: nothing was checked: pip-audit found no advisories of any package that is installed")
        return UNREACHABLE
    count = sum(len(package["vulns"]) for package in checked)
    print(f"audit: {len(checked)} packages, {count} known vulnerabilities")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
