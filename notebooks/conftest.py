"""Under pytest, notebooks run small, offline and on one thread."""

import os

os.environ.setdefault("BYTELM_NOTEBOOKS", "tiny")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
