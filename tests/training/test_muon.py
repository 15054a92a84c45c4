import copy

import lightning as L
import pytest
import torch
from support import KINDS, LIGHTNING_ADVICE, tiny_config, tiny_model

from bytelm.errors import ConfigError
from bytelm.heads import DraftHeads, LMHead
from bytelm.model.ends import NextPatchConfig
from bytelm.nn.position import Places
from bytelm.training import ByteLMModule, DecayGroup, OptimizerConfig

pytestmark = [
    pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon"),
    *LIGHTNING_ADVICE,
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.*resuming from a checkpoint that ended before the epoch"),
]
MUON = OptimizerConfig(algorithm="muon", lr=1e-2, min_lr=1e-3, warmup_steps=3, weight_decay=0.1)
STACKED = {"query_key_value.weight": (32, 16, 16), "gate_up.weight": (48, 48)}
"""Rows of the matrices of a tiny model (H, G, E = 4, 2, 8; F = 48) that are stacked in one parameter."""


def rows_of(name, parameter):
    return next((rows for end, rows in STACKED.items() if name.endswith(end)), (len(parameter),))


def orthogonalised(matrix):
    """Newton-Schulz iteration as Jordan et al. 2024 have it, in float32: singular values near 1."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm()
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def expected_weights(weight, grads, rates, rows, decay, momentum=0.95):
    """A parameter after steps with these gradients, each of the stacked matrices on its own."""
    parts = []
    for i, part in enumerate(weight.split(rows)):
        mean, part = torch.zeros_like(part), part.clone()
        for grad, rate in zip(grads, rates, strict=True):
            g = grad.split(rows)[i]
            mean = momentum * mean + (1 - momentum) * g
            step = orthogonalised(momentum * mean + (1 - momentum) * g)
            part = part * (1 - rate * decay) - rate * 0.2 * max(part.shape) ** 0.5 * step
        parts.append(part)
    return torch.cat(parts)


def grads_of(model, step):
    generator = torch.Generator().manual_seed(step)
    return {n: torch.randn(p.shape, generator=generator) for n, p in model.named_parameters()}


def steps(model, optimizer, schedule, numbers):
    rates = []
    for number in numbers:
        for name, grad in grads_of(model, number).items():
            model.get_parameter(name).grad = grad
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


def muon_names(model, optimizer):
    names = {id(p): n for n, p in model.named_parameters()}
    groups = [g for g in optimizer.param_groups if "ns_steps" in g]
    return {names[id(p)] for g in groups for p in g["params"]}


@pytest.mark.parametrize("kind", [*KINDS, ("chained", False, "next_patch")], ids=str)
def test_hidden_matrices_alone_are_muons(kind):
    changes = {"next_patch": NextPatchConfig(byte_width=6, inner=20)} if len(kind) > 2 else {}
    model = tiny_model(*kind[:2], **changes)
    optimizer, _ = MUON.build(model, 10)
    parameters = dict(model.named_parameters())
    assert muon_names(model, optimizer) == {
        n for n in parameters if n.endswith("weight") and not any(k in n for k in ("norm", "embedding", "table"))
    }
    every = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert sorted(every) == sorted(map(id, parameters.values()))


def test_each_draft_head_is_a_matrix():
    from bytelm.training.muon import hidden_matrices  # which a torch without Muon cannot import

    heads = [LMHead(8, 11, 11) for _ in range(3)]
    rows = hidden_matrices(draft_heads := DraftHeads(8, 3, heads))
    assert [(p is draft_heads.residual.weight, r) for p, r in rows.items()] == [(True, (8, 8, 8))]


@torch.no_grad()
def test_rows_of_queries_keys_and_values_are_what_they_are_said_to_be():
    attention = tiny_model().blocks[0].attention
    queries, keys, values = STACKED["query_key_value.weight"]
    places = (Places(None, None), 0, None)
    x, weight = torch.randn(1, 6, 32), attention.query_key_value.weight.data
    whole, saved = attention(x, *places), weight.clone()
    averages = attention.output(
        (x @ weight[-values:].T).cumsum(1).unflatten(-1, (1, 1, 16)).expand(-1, -1, -1, 2, -1).flatten(2)
        / torch.arange(1, 7)[:, None]
    )
    assert not torch.allclose(whole, averages, rtol=1e-3)
    for part in (slice(0, queries), slice(queries, queries + keys)):  # without queries, or keys, all places are alike
        weight[part] = 0
        torch.testing.assert_close(attention(x, *places), averages, rtol=1e-4, atol=1e-3)  # outputs up to 300
        weight.copy_(saved)


@pytest.mark.parametrize("kind", ["independent", "chained"])
def test_steps_are_those_of_the_formula_on_every_matrix_of_its_own(kind):
    model = tiny_model(kind, scale=1.0)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer, schedule = MUON.build(model, 10)
    rates = steps(model, optimizer, schedule, range(3))
    assert len(set(rates)) == 3
    for name in muon_names(model, optimizer):
        grads = [grads_of(model, number)[name] for number in range(3)]
        rows = rows_of(name, before[name])
        found, start = model.get_parameter(name).detach(), before[name]
        expected = expected_weights(start, grads, rates, rows, 0.1)
        # torch iterates in bfloat16: 0.7 % of the change at worst here
        assert (found - expected).norm() < 0.02 * (expected - start).norm(), name
        if len(rows) > 1:
            wrong = expected_weights(start, grads, rates, (len(start),), 0.1)
            assert (found - wrong).norm() > 0.1 * (expected - start).norm(), name


def test_the_rest_is_as_with_adamw_alone():
    models = [tiny_model("chained", True, scale=1.0) for _ in range(2)]
    muon, schedule = MUON.build(models[0], 10)
    steps(models[0], muon, schedule, range(3))
    adamw = OptimizerConfig(lr=1e-2, min_lr=1e-3, warmup_steps=3, weight_decay=0.1)
    steps(models[1], *adamw.build(models[1], 10), range(3))
    hidden = muon_names(models[0], muon)
    for name, parameter in models[0].named_parameters():
        assert torch.equal(parameter, models[1].get_parameter(name)) == (name not in hidden), name


def test_its_state_goes_on_where_it_was():
    models = [tiny_model() for _ in range(2)]
    optimizer, schedule = MUON.build(models[0], 10)
    steps(models[0], optimizer, schedule, range(2))
    models[1].load_state_dict(models[0].state_dict())
    again, schedule_again = MUON.build(models[1], 10)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    schedule_again.load_state_dict(schedule.state_dict())
    assert steps(models[0], optimizer, schedule, (2, 3)) == steps(models[1], again, schedule_again, (2, 3))
    assert all(torch.equal(p, models[1].get_parameter(n)) for n, p in models[0].named_parameters())
    assert len(optimizer.state) == len(list(models[0].parameters()))


def test_a_step_calls_its_closure_once_with_gradients():
    model = tiny_model()
    optimizer, schedule = MUON.build(model, 10)
    calls = []

    def closure():
        optimizer.zero_grad()
        loss = model.patch_nats(torch.zeros(1, 12, dtype=torch.uint8)).mean()
        loss.backward()
        calls.append(loss.item())
        return loss

    assert optimizer.step(closure).item() == calls[0]
    schedule.step()
    assert len(calls) == 1
    assert model.patch_nats(torch.zeros(1, 12, dtype=torch.uint8)).mean().item() < calls[0]


def test_decay_groups_hold_for_both():
    groups = (
        DecayGroup(names="blocks.0.*weight", weight_decay=0.5),
        DecayGroup(names="*embedding*", weight_decay=0.25),
    )
    model = tiny_model("chained", True)
    config = OptimizerConfig(algorithm="muon", lr=1e-2, warmup_steps=0, weight_decay=0.1, decay_groups=groups)
    optimizer, _ = config.build(model, 10)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        linear = name.endswith("weight") and not any(k in name for k in ("norm", "table"))
        decay = 0.5 if name.startswith("blocks.0.") else 0.25 if "embedding" in name else 0.1 * linear
        torch.testing.assert_close(parameter.detach(), before[name] * (1 - 1e-2 * decay), msg=name)


def fit(folder, steps, path=None):
    module = ByteLMModule(config=tiny_config(), optimizer=MUON)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        default_root_dir=folder,
    )
    batch = torch.randint(0, 256, (4, 52), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    trainer.fit(module, torch.utils.data.DataLoader([batch] * 20, batch_size=None), ckpt_path=path)
    return trainer, module.model.state_dict()


def test_a_run_trains_with_it_and_resumes(tmp_path):
    fresh = ByteLMModule(config=tiny_config()).model.state_dict()
    trainer, half = fit(tmp_path, 3)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    _, whole = fit(tmp_path, 6)
    _, resumed = fit(tmp_path, 6, tmp_path / "half.ckpt")
    assert not any(torch.equal(fresh[n], t) for n, t in half.items())
    # the shorter run is all warm-up, in which the end of training does not matter
    assert all(torch.equal(t, resumed[n]) for n, t in whole.items())


def test_a_torch_without_it_is_named_in_one_line(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(
        ConfigError, match=r"^optimizer\.algorithm: found 'muon' with torch .*, expected a torch that has Muon"
    ):
        OptimizerConfig.from_dict({"algorithm": "muon"}, "optimizer")
    OptimizerConfig()
