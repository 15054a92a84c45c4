"""Where the time of a training step goes: shares of the operations of torch, in one run of the loop of ``bytelm fit``.

``python experiments/training_profile.py --config FILE [OPTIONS OF FIT]``: three steps after two others, under torch's
profiler, which makes small operations slower than they are. Time of an operation is without what it calls.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import lightning as L
import torch
from torch.profiler import ProfilerActivity, profile

from bytelm.cli.bench_train_contenders import our_contender, text_folder
from bytelm.cli.console import format_table
from bytelm.cli.lightning import read_settings
from bytelm.training.quiet import quiet_lightning

WARMUP, STEPS, ROWS = 2, 3, 24


class Profile(L.Callback):
    """Profiles the last steps."""

    def __init__(self) -> None:
        self.profiler = profile(activities=[ProfilerActivity.CPU])

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:  # noqa: ANN001
        """Begin."""
        if batch_idx == WARMUP:
            self.profiler.__enter__()

    def on_train_end(self, trainer, module) -> None:  # noqa: ANN001
        """End."""
        self.profiler.__exit__(None, None, None)


def main(args: list[str]) -> None:
    """Run and print."""
    quiet_lightning()
    warnings.simplefilter("ignore")
    settings = read_settings(args)
    with tempfile.TemporaryDirectory() as scratch:
        corpus, _ = text_folder(settings, Path(scratch))
        ours = our_contender("bytelm", settings, corpus, WARMUP + STEPS, compiled=False)
        seen = Profile()
        trainer = L.Trainer(
            **ours.trainer,
            precision=settings["trainer"]["precision"],
            max_steps=WARMUP + STEPS,
            callbacks=[*ours.callbacks(), seen],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        trainer.fit(ours.module, ours.data)
    events = sorted(seen.profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    rows = [
        [e.key[:60], str(e.count // STEPS), f"{e.self_cpu_time_total / 1e3 / STEPS:.1f}", f"{share:.1f} %"]
        for e in events[:ROWS]
        for share in [100 * e.self_cpu_time_total / total]
    ]
    print(f"{torch.get_num_threads()} threads, {settings['trainer']['precision']}, {total / 1e3 / STEPS:.0f} ms a step")
    print(format_table(["operation", "calls a step", "ms a step", "share"], rows, "lrrr"))


if __name__ == "__main__":
    main(sys.argv[1:])
