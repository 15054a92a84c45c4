"""Check what ``make dist`` has built: the same files everywhere, none missing, cores in one wheel and in no other."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

BUILT_HERE = (".so", ".pyd")


def main(folder: Path) -> int:
    """Compare the archives in ``folder`` with the files of the checkout; 0 where all is right."""
    listed = subprocess.run(["git", "ls-files", "bytelm"], capture_output=True, text=True, check=True).stdout.split()
    wanted = {name for name in listed if not name.endswith((".c", ".h"))}
    wheels = {path.name.split("-")[-1].removesuffix(".whl"): files_of_wheel(path) for path in folder.glob("*.whl")}
    wrong = []
    for platform, files in sorted(wheels.items()):
        found = {name for name in files if name.startswith("bytelm/") and not name.endswith(BUILT_HERE)}
        wrong += [f"wheel for {platform}: {name} is missing" for name in sorted(wanted - found)]
        wrong += [f"wheel for {platform}: {name} is not in the repository" for name in sorted(found - wanted)]
        cores = [name for name in files if name.endswith(BUILT_HERE)]
        print(f"wheel for {platform}: {len(found)} files and {len(cores)} native cores")
        if platform == "any" and cores:
            wrong.append(f"wheel for any platform: it has {cores}")
    if len(wheels) < 2 or "any" not in wheels:
        wrong.append(
            f"found wheels for {', '.join(wheels) or 'nothing'}, expected one for this platform and one for any"
        )
    for path in folder.glob("*.tar.gz"):
        with tarfile.open(path) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        wrong += [f"{path.name}: {name} is missing" for name in sorted(set(listed) - names)]
        wrong += [f"{path.name}: {name} was built here" for name in names if name.endswith(BUILT_HERE)]
        print(f"{path.name}: {len(names)} files")
    for line in wrong:
        print(f"error: {line}")
    return 1 if wrong else 0


def files_of_wheel(path: Path) -> list[str]:
    """Names of the files in a wheel."""
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
