"""The native cores: of the encodings, of linear layers, and of norms, rotations and tables' rows in training.

All else is in pyproject.toml.

Where there is no C compiler, what cannot be built is left out, and numpy and torch do the work. ``BYTELM_NATIVE=0``
leaves it out always: so is made the wheel that fits every platform, which pip takes where no other one fits.
"""

import os

from setuptools import Extension, setup

ROWS = ("_module", "_rows", "_rows_dot", "_attend", "_attend_dot", "_blocks", "_heads", "_merger")
ROWS_HEADERS = ("_attend", "_blocks", "_dot", "_matches", "_numbers", "_parts", "_rows", "_rows_dot", "_tables")

CORES = [
    Extension("bytelm.encoding._kernel", ["bytelm/encoding/_kernel.c"], extra_compile_args=["-O3"], optional=True),
    # OpenMP: its threads are those of torch where both use the same library, as the wheels for Linux do.
    Extension(
        "bytelm.nn._rows",
        [f"bytelm/nn/{name}.c" for name in ROWS],
        depends=[f"bytelm/nn/{name}.h" for name in ROWS_HEADERS],
        extra_compile_args=["-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp"],
        extra_link_args=["-fopenmp"],
        optional=True,
    ),
    Extension(
        "bytelm.nn._elementwise",
        ["bytelm/nn/_elementwise.c"],
        depends=["bytelm/nn/_numbers.h"],
        extra_compile_args=["-O3", "-fno-math-errno", "-ffp-contract=off", "-fopenmp"],
        extra_link_args=["-fopenmp"],
        optional=True,
    ),
    Extension(
        "bytelm.training._row_adamw",
        ["bytelm/training/_row_adamw.c"],
        extra_compile_args=["-O3", "-fno-math-errno", "-fopenmp"],
        extra_link_args=["-fopenmp"],
        optional=True,
    ),
]

setup(ext_modules=[] if os.environ.get("BYTELM_NATIVE") == "0" else CORES)
