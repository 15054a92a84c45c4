"""The metrics of a run, read back from the CSV file that Lightning's CSVLogger wrote."""

import csv
from dataclasses import dataclass
from pathlib import Path

from bytelm.errors import BytelmError


@dataclass(frozen=True)
class History:
    """Curves of a run.

    Attributes:
        train: (step, nats per byte over all heads).
        valid: (step, bits per character of the model's default law).
        head_bits: step to bits per byte of heads 1, 2, ….
    """

    train: list[tuple[int, float]]
    valid: list[tuple[int, float]]
    head_bits: dict[int, list[float]]


def read_history(run: Path) -> History:
    """Read ``RUN/metrics.csv``.

    Raises:
        BytelmError: there is no such file.
    """
    path = run / "metrics.csv"
    if not path.is_file():
        raise BytelmError(f"{path}: no such file, expected the metrics of a run with a CSVLogger")
    train, valid, heads = [], [], {}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            step = int(row["step"]) + 1
            if row.get("train/nats_per_byte"):
                train.append((step, float(row["train/nats_per_byte"])))
            if row.get("val/bits_per_char"):
                valid.append((step, float(row["val/bits_per_char"])))
                names = sorted(n for n in row if n.startswith("val/bits_head_"))
                heads[step] = [float(row[n]) for n in names]
    return History(train, valid, heads)
