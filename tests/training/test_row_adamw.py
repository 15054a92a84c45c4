"""Tables of which a step changes the rows that it read: against torch's AdamW on each row alone, and on all."""

import copy
import dataclasses

import lightning as L
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import LIGHTNING_ADVICE, tiny_config, tiny_model
from torch import nn

from bytelm.errors import ConfigError
from bytelm.training import ByteLMModule, CorpusData, DecayGroup, OptimizerConfig, row_adamw
from bytelm.training.checkpoint_io import checkpoints
from bytelm.training.gradients import clip_gradient_norm, gradient_values
from bytelm.training.row_adamw import RowAdamW
from bytelm.training.save_run import SaveRun

pytestmark = LIGHTNING_ADVICE
READ = OptimizerConfig(lr=1e-2, min_lr=1e-3, warmup_steps=2, tables="read_rows")
ROWS, WIDTH = 7, 3
READS = st.lists(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=5), min_size=1, max_size=6)


def sparse(rows, values):
    return torch.sparse_coo_tensor(torch.tensor(rows)[None], values, (ROWS, WIDTH), check_invariants=True)


@settings(max_examples=25)
@given(READS, st.sampled_from([0.0, 0.3]), st.sampled_from([(0.9, 0.999), (0.5, 0.8)]))
def test_each_row_is_a_parameter_of_its_own(reads, decay, betas):
    """The reference: one AdamW of torch for each row, which makes a step where the row was read."""
    torch.manual_seed(0)
    table = nn.Parameter(torch.randn(ROWS, WIDTH))
    alone = [nn.Parameter(row.detach().clone()) for row in table]
    options = {"lr": 0.1, "betas": betas, "eps": 1e-6, "weight_decay": decay}
    references = [torch.optim.AdamW([row], **options) for row in alone]
    optimizer = RowAdamW([table], **options)
    for number, rows in enumerate(reads):
        for group in [*optimizer.param_groups, *(g for r in references for g in r.param_groups)]:
            group["lr"] = 0.1 / (1 + number)
        values = torch.randn(len(rows), WIDTH)
        table.grad = sparse(rows, values)
        for row in set(rows):
            alone[row].grad = values[[n for n, r in enumerate(rows) if r == row]].sum(0)
            references[row].step()
        optimizer.step()
    torch.testing.assert_close(table.detach(), torch.stack([row.detach() for row in alone]), atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(row_adamw.core is None, reason="the native core was not built")
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_the_core_does_what_torch_does(decay, monkeypatch):
    """Forty steps at width 37, no multiple of a vector: rows and moments, to a rounding or two of float32."""
    found = []
    for core in (row_adamw.core, None):
        monkeypatch.setattr(row_adamw, "core", core)
        torch.manual_seed(1)
        table = nn.Parameter(torch.randn(50, 37))
        optimizer = RowAdamW([table], lr=0.01, weight_decay=decay)
        for _ in range(40):
            rows = torch.randint(0, 50, (1, 30))
            table.grad = torch.sparse_coo_tensor(rows, torch.randn(30, 37), table.shape, check_invariants=True)
            optimizer.step()
        found.append([table.detach(), *optimizer.state[table].values()])
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("change", [lambda table: table.double(), lambda table: table.t().contiguous().t()])
def test_other_layouts_and_types_do_without_the_core(change, monkeypatch):
    monkeypatch.setattr(row_adamw, "core", None if row_adamw.core is None else "not called")
    table = nn.Parameter(change(torch.ones(ROWS, WIDTH)))
    table.grad = sparse([1], torch.ones(1, WIDTH, dtype=table.dtype))
    RowAdamW([table], lr=0.5, weight_decay=0.0).step()
    torch.testing.assert_close(table[1].detach(), torch.full((WIDTH,), 0.5, dtype=table.dtype))


def test_all_rows_and_read_rows_are_one_rule_where_all_rows_are_read_and_two_where_not():
    tables = [nn.Parameter(torch.ones(ROWS, WIDTH)) for _ in range(2)]
    dense, by_row = (
        torch.optim.AdamW([tables[0]], lr=0.1, weight_decay=0.1),
        RowAdamW([tables[1]], lr=0.1, weight_decay=0.1),
    )
    for rows in (range(ROWS), range(ROWS), range(2)):
        grad = sparse(list(rows), torch.randn(len(rows), WIDTH))
        tables[0].grad, tables[1].grad = grad.to_dense(), grad
        before = tables[1].detach().clone()
        dense.step()
        by_row.step()
        if len(rows) == ROWS:
            torch.testing.assert_close(tables[0], tables[1], atol=1e-6, rtol=0)
    assert torch.equal(tables[1][2:], before[2:])
    assert (tables[0][2:] - before[2:]).abs().min() > 1e-3


def test_what_a_lone_gradient_moves():
    """As the docstring says: 32 rates by AdamW over all rows, a rate here."""
    moved = []
    for make in (torch.optim.AdamW, RowAdamW):
        table = nn.Parameter(torch.zeros(1, 1, dtype=torch.float64))
        optimizer = make([table], lr=1.0, weight_decay=0.0)
        zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
        by_row = make is RowAdamW
        late = 20_000  # corrections of the moments are long over
        table.grad = (zero + 1e-30).to_sparse(1) if by_row else zero
        optimizer.step()
        state = optimizer.state[table]
        state["step"] = torch.zeros(1) if by_row else torch.tensor(float(late))
        state["exp_avg"].zero_()
        state["exp_avg_sq"].zero_()
        begin = table.item()
        table.grad = one.to_sparse(1) if by_row else one
        optimizer.step()
        for _ in range(300):
            table.grad = None if by_row else zero
            optimizer.step()
        moved.append(begin - table.item())
    assert moved[0] == pytest.approx(0.1 / 0.001**0.5 / (1 - 0.9 / 0.999**0.5), rel=0.01)
    assert moved[0] == pytest.approx(32, abs=0.5)
    assert moved[1] == pytest.approx(1.0, rel=1e-6)


def steps(model, optimizer, schedule, numbers, accumulate=1, limit=None):
    for number in numbers:
        for part in range(accumulate):
            torch.manual_seed(100 * number + part)
            model.patch_nats(torch.randint(0, 256, (2, 24))).mean().backward()
        if limit is not None:
            clip_gradient_norm(model.parameters(), limit)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def test_gradients_are_those_of_the_dense_table():
    config = OptimizerConfig(tables="all_rows"), READ
    models = [tiny_model("chained", True) for _ in range(2)]
    for model, each in zip(models, config, strict=True):
        each.build(model, 5)
        model.patch_nats(torch.arange(48).view(2, 24) * 5).mean().backward()
    for (name, p), q in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert q.grad.is_sparse == ("table" in name)
        torch.testing.assert_close(p.grad, q.grad.to_dense() if q.grad.is_sparse else q.grad, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("limit", [1e-3, 1e3])
def test_the_norm_is_that_of_dense_gradients(limit):
    values = torch.randn(4, WIDTH)
    pair = [nn.Parameter(torch.zeros(ROWS, WIDTH)), nn.Parameter(torch.zeros(5))]
    other = copy.deepcopy(pair)
    pair[0].grad, pair[1].grad = sparse([1, 6, 1, 2], values), torch.randn(5)
    other[0].grad, other[1].grad = pair[0].grad.to_dense(), pair[1].grad.clone()
    norm = nn.utils.clip_grad_norm_(other, limit)
    torch.testing.assert_close(clip_gradient_norm(pair, limit), norm)
    torch.testing.assert_close(pair[0].grad.to_dense(), other[0].grad)
    torch.testing.assert_close(pair[1].grad, other[1].grad)
    assert [len(v) for v in gradient_values(pair)] == [3, 5]


@pytest.mark.parametrize("algorithm", ["adamw", "muon"])
@pytest.mark.parametrize(("tables", "scale"), [("read_rows", 1.0), ("read_rows", 8.0), ("all_rows", 8.0)])
def test_a_state_that_was_saved_goes_on_to_the_bit(tables, scale, algorithm, tmp_path):
    if algorithm == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    chosen = {"algorithm": algorithm, "tables": tables, "table_lr_scale": scale}
    config = OptimizerConfig.from_dict({**READ.to_dict(), **chosen})
    models = [tiny_model("chained", True) for _ in range(3)]
    optimizer, schedule = config.build(models[0], 6)
    steps(models[0], optimizer, schedule, range(6), accumulate=2, limit=0.5)
    optimizer, schedule = config.build(models[1], 6)
    steps(models[1], optimizer, schedule, range(3), accumulate=2, limit=0.5)
    torch.save((models[1].state_dict(), optimizer.state_dict(), schedule.state_dict()), tmp_path / "state")
    weights, *states = torch.load(tmp_path / "state", weights_only=True)
    models[2].load_state_dict(weights)
    optimizer, schedule = config.build(models[2], 6)
    optimizer.load_state_dict(states[0])
    schedule.load_state_dict(states[1])
    steps(models[2], optimizer, schedule, range(3, 6), accumulate=2, limit=0.5)
    for (name, p), q in zip(models[0].named_parameters(), models[2].parameters(), strict=True):
        assert torch.equal(p, q), name
    if scale != 1:  # it had a part in it
        common = tiny_model("chained", True)
        steps(common, *dataclasses.replace(config, table_lr_scale=1.0).build(common, 6), range(6), 2, limit=0.5)
        assert not torch.equal(common.heads.tables.table.weight, models[0].heads.tables.table.weight)


def test_decay_groups_reach_the_tables():
    group = DecayGroup(names="merger.tables.*", weight_decay=0.5)
    config = OptimizerConfig.from_dict({**READ.to_dict(), "decay_groups": [group.to_dict()]})
    model = tiny_model("chained", True)
    optimizer, schedule = config.build(model, 5)
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert len(decays) == len(list(model.parameters()))
    assert decays[id(model.merger.tables.table.weight)] == 0.5
    assert decays[id(model.heads.tables.table.weight)] == 0.0
    assert schedule.get_last_lr() == pytest.approx([READ.lr / 3] * len(optimizer.param_groups))
    optimizer.step()
    schedule.step()
    assert [g["lr"] for g in optimizer.inner[-1].param_groups] == pytest.approx([READ.lr * 2 / 3] * 2)


def fit(corpora, folder, *, config=READ, ckpt_path=None, max_steps=4, kind="chained", **options):
    L.seed_everything(3, verbose=False)
    module = ByteLMModule(config=tiny_config(kind, True), optimizer=config)
    data = CorpusData(corpora["train"], window=16, batch_size=2, windows_per_epoch=10)
    defaults = {
        "accelerator": "cpu",
        "max_steps": max_steps,
        "logger": False,
        "gradient_clip_val": 0.1,
        "limit_val_batches": 0,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "reload_dataloaders_every_n_epochs": 1,
        "default_root_dir": folder,
        "callbacks": [SaveRun(every_n_steps=1, keep=9)],
    }
    trainer = L.Trainer(**defaults | options)
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return module


@pytest.mark.parametrize(("accumulate", "scale"), [(1, 1.0), (2, 1.0), (1, 8.0)])
def test_a_run_goes_on_to_the_bit(accumulate, scale, corpora, tmp_path):
    options = {"accumulate_grad_batches": accumulate, "config": dataclasses.replace(READ, table_lr_scale=scale)}
    whole = fit(corpora, tmp_path / "whole", **options)
    first = checkpoints(tmp_path / "whole" / "checkpoints")[-1]
    module = fit(corpora, tmp_path / "again", ckpt_path=first, **options)
    for (name, p), q in zip(whole.named_parameters(), module.named_parameters(), strict=True):
        assert torch.equal(p, q[1]), name
    dense = fit(corpora, tmp_path / "dense", accumulate_grad_batches=accumulate, config=OptimizerConfig(**CHANGED))
    table, other = (m.model.merger.tables.table.weight for m in (whole, dense))
    changed = (table != fresh_table()).any(1)
    assert 0 < int(changed.sum()) < len(table)
    assert not torch.equal(table, other)


CHANGED = {"lr": READ.lr, "min_lr": READ.min_lr, "warmup_steps": READ.warmup_steps}


def fresh_table():
    return ByteLMModule(config=tiny_config("chained", True)).model.merger.tables.table.weight


def test_clipping_by_value_is_refused(corpora, tmp_path):
    with pytest.raises(ConfigError, match=r"^trainer\.gradient_clip_algorithm: found 'value', expected 'norm'"):
        fit(corpora, tmp_path, gradient_clip_algorithm="value")
