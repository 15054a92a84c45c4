"""Two processes whose tables have gradients of rows give what one does with the batches of both."""

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from support import tiny_config

from bytelm.training import ByteLMModule, CorpusData, OptimizerConfig

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Lightning gives advice
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without processes"),
]


def fit(corpora, folder, strategy, devices, batch_size):
    L.seed_everything(3, verbose=False)
    config = OptimizerConfig(lr=1e-2, min_lr=1e-3, warmup_steps=2, tables="read_rows")
    module = ByteLMModule(config=tiny_config("chained", True), optimizer=config)
    data = CorpusData(corpora["train"], window=16, batch_size=batch_size, windows_per_epoch=16)
    trainer = L.Trainer(
        accelerator="cpu",
        strategy=strategy,
        devices=devices,
        max_steps=3,
        accumulate_grad_batches=2,
        gradient_clip_val=0.1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    trainer.fit(module, data)
    return module


def test_two_processes_are_one(corpora, tmp_path):
    one = fit(corpora, tmp_path, "auto", 1, 4)
    two = fit(corpora, tmp_path, DDPStrategy(process_group_backend="gloo", start_method="fork"), 2, 2)
    changed = 0
    for (name, p), q in zip(one.model.named_parameters(), two.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=2e-5, rtol=0, msg=name)
        changed += "table" in name
    assert changed == 2
