"""Audits of targets: right ones pass, with every slot poisoned that must not be read, and wrong ones fail."""

import copy

import numpy as np
import pytest
import torch
from support import BOS, LAWS, random_bytes, tiny_model, trained_model
from wrong_targets import WRONG_TARGETS

import bytelm.testing as kit
from bytelm.decoding import HeadsDrafter, LookupDrafter, decode
from bytelm.model import reading
from bytelm.model.targets import NextTarget, PatchTarget, make_target
from bytelm.nn import native
from bytelm.nn.kv_cache import CacheView
from bytelm.nn.position import Rotary

TOY = kit.ToyLaw.random(7, seed=1)
TOY_PROMPTS = [np.array(p, dtype=np.uint8) for p in ([1, 2], [3], [], [4, 5, 6, 0, 1])]
PROMPTS = [random_bytes(n, n) for n in (5, 0, 2, 17, 8)]
POISONS = [None, kit.poison_cache]
BYTE_LAWS = ["product", "chain", "next"]


def check_toy(make, poison=None, **options):
    return kit.check_cache(make, TOY_PROMPTS, poison=poison, tolerance=0, **options)


@pytest.mark.parametrize("poison", POISONS, ids=["plain", "poison"])
@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("seed", range(5))
def test_the_toy_target_passes(seed, unit, poison):
    report = check_toy(lambda: kit.ToyTarget(TOY, unit), poison, seed=seed)
    assert report.outcome == "passed", report.message
    assert report.figures["cases"] == 13
    assert report.figures["states"] > 50


@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("wrong", WRONG_TARGETS)
def test_wrong_toy_targets_fail(wrong, unit):
    report = check_toy(lambda: wrong(TOY, unit))
    assert report.failed
    assert "logits after 0 symbols of the unit off by" in report.message


class Forgetful(kit.ToyTarget):
    """Trusts that the last committed unit is in the cache already."""

    def _write(self, begins_B, symbols):
        if symbols.shape[1] > self.unit:
            super()._write(begins_B + self.unit, symbols[:, self.unit :])


def test_what_a_target_does_not_write_is_caught():
    assert check_toy(lambda: Forgetful(TOY), kit.poison_cache).failed


def byte_target(law, target=None, **options):
    model = tiny_model("independent" if law == "product" else "chained")
    if target is None:
        return lambda: make_target(model, law, BOS, **options)
    return lambda: target(model, BOS)


@pytest.mark.parametrize("poison", POISONS, ids=["plain", "poison"])
@pytest.mark.parametrize(("law", "kind", "tables"), LAWS)
def test_byte_models_pass(law, kind, tables, poison):
    model = tiny_model(kind, tables)
    for seed, max_draft in ((0, 8), (1, 3 if law == "next" else 4), (2, 16))[: 1 if poison is None else 3]:
        report = kit.check_cache(
            lambda: make_target(model, law, BOS), PROMPTS, poison=poison, rounds=10, seed=seed, max_draft=max_draft
        )
        assert report.outcome == "passed", report.message
        assert report.figures["worst"] < 2e-6


@pytest.mark.parametrize("law", ["chain", "next"])
def test_trained_models_pass(law):
    model = trained_model("chained", next_patch=True)[0]
    report = kit.check_cache(lambda: make_target(model, law, BOS), PROMPTS, poison=kit.poison_cache, rounds=6)
    assert report.outcome == "passed", report.message


@pytest.mark.parametrize("law", BYTE_LAWS)
def test_a_rejected_draft_left_in_its_slot_is_caught(monkeypatch, law):
    def keep(self, block, k_BGTE, v_BGTE):
        stale = self.cache.keys[block].clone(), self.cache.values[block].clone()
        plain(self, block, k_BGTE, v_BGTE)
        written = (stale[0] != 0).any(-1, keepdim=True)
        for part, old in zip((self.cache.keys[block], self.cache.values[block]), stale, strict=True):
            part.copy_(torch.where(written, old, part))
        found = self.cache.keys[block][:, :, : self.num_slots], self.cache.values[block][:, :, : self.num_slots]
        return found if self.rows is None else tuple(part[self.rows] for part in found)

    plain = CacheView.extend
    make = byte_target(law)
    monkeypatch.setattr(native, "core", None)  # which writes to the cache itself
    monkeypatch.setattr(CacheView, "extend", keep)
    report = kit.check_cache(make, PROMPTS)
    assert report.failed
    assert report.figures["cases"] > 1, "the prefill is right"
    assert 1e-4 < report.figures["worst"] < torch.inf


def forward_late(model, windows_BTP, cache, rows, positions, num_slots):
    late = int(windows_BTP.shape[1] > 1)
    num_slots = min(num_slots + late, cache.capacity)
    return reading.forward(model, windows_BTP, cache, rows, (positions + late).clamp(max=cache.capacity - 1), num_slots)


class LatePatch(PatchTarget):
    """Reads and writes one slot late, once a draft is there."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self._forward = forward_late


@pytest.mark.parametrize(("law", "target"), [("product", LatePatch), ("chain", LatePatch), ("next", NextTarget)])
def test_a_position_off_by_one_is_caught(monkeypatch, law, target):
    """Under ``next`` the last byte is sought in another stream than it was read in."""
    place = reading.place
    monkeypatch.setattr(reading, "place", lambda begins, patch: place(begins + (begins > 20), patch))
    report = kit.check_cache(byte_target(law, target), PROMPTS)
    assert report.failed
    assert report.figures["cases"] > 1
    assert 1e-4 < report.figures["worst"] < torch.inf


@pytest.mark.parametrize("law", BYTE_LAWS)
def test_a_mask_with_a_leak_is_caught_by_poison_alone(monkeypatch, law):
    """What should be hidden counts exp(-40) of the rest: nothing, until a number there is huge."""
    plain, make = Rotary.forward, byte_target(law)
    monkeypatch.setattr(native, "core", None)  # which has no mask that could leak

    def leaky(self, positions, seen):
        places = plain(self, positions, seen)
        return places._replace(mask=torch.where(places.mask, 0.0, -40.0))

    monkeypatch.setattr(Rotary, "forward", leaky)
    assert kit.check_cache(make, PROMPTS).outcome == "passed"
    report = kit.check_cache(make, PROMPTS, poison=kit.poison_cache)
    assert report.failed
    assert report.figures["cases"] == 2, "the first round reads poison"


@pytest.mark.parametrize(("law", "base"), [("product", PatchTarget), ("chain", PatchTarget), ("next", NextTarget)])
def test_slots_that_need_not_be_loaded_are_caught_by_poison_alone(monkeypatch, law, base):
    """0 times NaN is NaN: a forward over all of the cache shows, though its mask is right."""
    monkeypatch.setattr(native, "core", None)  # which loads what is seen alone

    class Greedy(base):
        def _slots_read(self, num_slots):
            return self.cache.capacity

    assert kit.check_cache(byte_target(law, Greedy), PROMPTS).outcome == "passed"
    assert kit.check_cache(byte_target(law, Greedy), PROMPTS, poison=kit.poison_cache).failed


# Near ties ------------------------------------------------------------------------------------------------------------


def near_tie_law(below):
    """Symbol 0 is the argmax everywhere, symbol 1 is ``below`` it, and 2 far below."""
    return kit.ToyLaw(np.tile([1.0, 1.0 - below, -1.0], (61, 1)))


def replay(law, symbols, unit=1, **options):
    rows = [np.array(row, dtype=np.uint8) for row in symbols]
    return kit.check_near_ties(kit.ToyTarget(law, unit), TOY_PROMPTS[: len(rows)], rows, **options)


@pytest.mark.parametrize("unit", [1, 4])
def test_margins_are_counted_in_units_of_the_last_place(unit):
    ulp = 2.0**-7  # of bfloat16, at logits from 1 to 2
    told = [[0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0, 0], [0]]
    report = replay(near_tie_law(3 * ulp), told, unit)
    assert report.outcome == "passed"
    expected = {"cases": 13, "not_argmax": 1, "first": 3, "worst": 3 * ulp, "worst_ulps": 3}
    assert report.figures == pytest.approx(expected)
    report = replay(near_tie_law(5 * ulp), told, unit)
    assert report.message.startswith("row 0, symbol 3: 0.0391 below the argmax, 5.0 units of the last place")
    assert replay(near_tie_law(5 * ulp), told, unit, ulps=5).outcome == "passed"
    assert replay(near_tie_law(3 * ulp), told, unit, dtype=torch.float32).failed
    assert replay(near_tie_law(ulp), [[0, 0], [0, 0, 0, 2]], unit).message.startswith("row 1, symbol 3:")
    assert replay(near_tie_law(0.0), [[1, 0]], unit).figures["not_argmax"] == 1, "of equals it is the first"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("law", BYTE_LAWS)
def test_greedy_output_is_right_up_to_near_ties(law, dtype):
    model = tiny_model("independent" if law == "product" else "chained", scale=3.0).to(dtype)
    make = lambda: make_target(model, law, BOS)  # noqa: E731
    plain = decode(make(), PROMPTS, max_new=24)
    answers = [row.tolist() for row in plain.symbols]
    drafters = [kit.OracleDrafter(answers, 8, 256), kit.ScriptedDrafter(answers, 16, 256, "110")]
    drafters += [HeadsDrafter(3) if law == "next" else LookupDrafter(8, min_match=2)]
    for drafter in drafters:
        found = decode(make(), PROMPTS, max_new=24, drafter=drafter)
        report = kit.check_near_ties(make(), PROMPTS, found.symbols, dtype=dtype)
        assert report.outcome == "passed", report.message
        assert report.figures["cases"] == 120
        if dtype == torch.float32:
            assert report.figures["worst"] == 0


@pytest.mark.parametrize("law", ["chain", "next"])
def test_a_symbol_that_is_no_tie_is_caught(law):
    """The second best in place of one symbol, where it is far from the best; and where it is near, it passes."""
    model = copy.deepcopy(trained_model("chained", next_patch=True)[0]).bfloat16().requires_grad_(False)
    target, prompt = make_target(model, law, BOS), PROMPTS[3]
    plain = decode(target, [prompt], max_new=24).symbols[0]
    assert kit.check_near_ties(target, [prompt], [plain]).outcome == "passed"
    places = []
    for place in range(0, 24, 3 if law == "next" else 4):  # others of a patch depend on what is before them in it
        block = make_target(model, law, BOS).start([np.concatenate((prompt, plain[:place]))], 4, 0)
        best, second = block.logits(torch.zeros(1, 1, 0, dtype=torch.int64))[0, 0].float().topk(2)
        gap = float(best[0] - best[1]) / (2.0 ** np.floor(np.log2(float(best.abs().max()))) * 2.0**-7)
        wrong = np.append(plain[:place], second[1].numpy().astype(np.uint8))
        report = kit.check_near_ties(target, [prompt], [wrong])
        if not 2 < gap <= 6:  # between, roundings of a prefill and of a replay decide
            assert report.failed == (gap > 4), f"symbol {place}, {gap} units"
        assert report.failed == report.message.startswith(f"row 0, symbol {place}: ")
        places.append(report.failed)
    assert sum(places) > 2
