"""``bytelm bench``: the commands of the group are registered here."""

import typer

from bytelm.cli.bench_decode import decode
from bytelm.cli.bench_train import TRAIN, train

bench = typer.Typer(name="bench", help="Speed of models, as ratios measured in one run.")
bench.command("decode")(decode)
bench.command("train", **TRAIN)(train)
