"""Byte models under the kit: every law and drafter gives what plain decoding of the row by itself gives."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import BOS, LAWS, tiny_model, trained_model

import bytelm.testing as kit
from bytelm.model.targets import make_target

BYTES = kit.ToyLaw.random(256, seed=0)
"""Says how many symbols there are; the models do not look at it."""

QUICK = kit.Drafting(plans=("01110",), numbers=(9,), distances=(1.0,))
FULL = kit.Drafting(plans=("1", "01110"), numbers=range(17), distances=(1.0,))
GUESSED = {"next": 3, "chain": 8}
NOT_TOLD = {"proposals": "the drafter itself is under test"}
NOT_GUESSED = {"model": "see the other drafters"}


@dataclasses.dataclass(frozen=True)
class ByteDecoder:
    """A byte model in place of the job's law, for outputs and drafts of a few symbols.

    Args:
        model: to decode with.
        law: of it.
        draft_with: see :class:`bytelm.testing.Ours`; the small model is an untrained one.
        max_new: no output is longer.
        max_draft: no draft is longer.
        compiled: run compiled forwards.
    """

    model: object
    law: str
    draft_with: str = "lookup"
    max_new: int = 12
    max_draft: int = 16
    compiled: bool = False

    def __call__(self, job):
        small = tiny_model("independent", seed=5)
        ours = kit.Ours(
            draft_with=self.draft_with,
            unit=1 if self.law == "next" else 4,
            make_target=lambda job: make_target(self.model, self.law, BOS, compiled=self.compiled),
            make_small=lambda job: make_target(small, "next", BOS),
        )
        max_new, num_draft = min(job.max_new, self.max_new), min(job.num_draft, self.max_draft)
        return ours(dataclasses.replace(job, max_new=max_new, num_draft=num_draft))


def check(decoder, lacks, ways, level="quick"):
    report = kit.check_seed_identity(decoder, lacks, level, BYTES, ways)
    assert report.outcome == "passed", report.message
    return report


@pytest.mark.parametrize(("law", "kind", "tables"), LAWS)
def test_every_law_gives_the_plain_result(law, kind, tables):
    check(ByteDecoder(tiny_model(kind, tables), law), NOT_GUESSED, QUICK)


@pytest.mark.parametrize("draft_with", ["model", "heads", "lookup", "auto"])
@pytest.mark.parametrize("law", ["next", "chain"])
def test_drafters_give_the_plain_result(law, draft_with):
    model = trained_model("chained", next_patch=True)[0]
    max_draft = GUESSED[law] if draft_with == "heads" else 5
    check(ByteDecoder(model, law, draft_with, max_draft=max_draft), NOT_TOLD, QUICK)


@pytest.mark.parametrize(("law", "temperature"), [("next", 1.4), ("chain", 0.8)])
def test_guesses_of_a_trained_model_hold_and_fail(law, temperature):
    """What the test above would otherwise not be about."""
    model, encoding = trained_model("chained", next_patch=True)
    decoder = ByteDecoder(model, law, "heads", max_new=60)
    prompts = tuple(tuple(encoding.encode(text).tolist()) for text in ("朝の港に", "山の", "図書館", "祖母と雪の窓"))
    job = kit.Job(law=BYTES, prompts=prompts, max_new=60, seeds=(1, 2, 3, 4), temperature=temperature)
    num_draft, unit = GUESSED[law], 1 if law == "next" else 4
    drafted = decoder(dataclasses.replace(job, num_draft=num_draft, draft_law=BYTES))
    forwards = sum(answer.forwards for answer in drafted)
    assert [a.symbols for a in drafted] == [a.symbols for a in decoder(job)]
    assert 4 * 60 / (num_draft + unit) < forwards - 4 < 0.9 * 4 * 60 / unit


def test_a_byte_model_that_looks_at_its_draft_is_caught():
    """Negative control: logits that are shifted where a draft was read."""

    class Swayed:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def advance(self, emitted, counts, draft):
            block = self.inner.advance(emitted, counts, draft)
            plain = block.logits
            block.logits = lambda prefix: plain(prefix) + (draft.shape[1] > 0) * plain(prefix).roll(1, -1)
            return block

    model = trained_model("chained", next_patch=True)[0]
    decoder = kit.Ours(make_target=lambda job: Swayed(make_target(model, "next", BOS)))
    report = kit.check_seed_identity(decoder, NOT_GUESSED, law=BYTES, ways=QUICK)
    assert report.failed
    assert "differs from symbol" in report.message


@pytest.mark.slow
@pytest.mark.parametrize(("law", "kind", "tables"), [LAWS[0], LAWS[4], LAWS[5]])
def test_every_draft_length_and_batch_gives_the_plain_result(law, kind, tables):
    check(ByteDecoder(tiny_model(kind, tables), law), NOT_GUESSED, FULL, "full")


@pytest.mark.slow
@pytest.mark.parametrize("draft_with", ["model", "heads", "lookup", "auto"])
@pytest.mark.parametrize("law", ["next", "chain"])
def test_every_draft_length_and_batch_of_every_drafter_gives_the_plain_result(law, draft_with):
    model = trained_model("chained", next_patch=True)[0]
    max_draft = {"next": 3, "chain": 16}[law] if draft_with == "heads" else 16
    numbers = range(17) if max_draft == 16 else range(4)
    ways = kit.Drafting(plans=(), numbers=numbers, distances=(1.0,))
    check(ByteDecoder(model, law, draft_with, max_draft=max_draft), NOT_TOLD, ways, "full")


COMPILED = """
import sys
from test_byte_models import *
model = trained_model("chained", next_patch=True)[0]
check(ByteDecoder(model, sys.argv[1], max_new=9, compiled=True), NOT_GUESSED, QUICK)
"""


@pytest.mark.slow
@pytest.mark.parametrize("law", ["next", "chain"])
def test_compiled_forwards_give_the_plain_result(law):
    """Logits of compiled forwards differ in the last places, so it is the compiled decoder that drafts are held to.

    In a process of its own: what checks the shapes of all arguments in tests cannot be compiled.
    """
    here = Path(__file__).parent
    paths = os.pathsep.join(map(str, (here, here.parent, here.parent.parent)))
    command = [sys.executable, "-c", COMPILED, law]
    run = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
