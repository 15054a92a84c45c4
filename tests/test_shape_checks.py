"""The remembering check of shapes: what passed once hides nothing that comes later."""

import dataclasses

import beartype
import jaxtyping
import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float
from shape_checks import form
from torch import Tensor

from bytelm.nn.norm import RMSNorm
from bytelm.shapes import Hidden

checked = jaxtyping.jaxtyped(typechecker=beartype.beartype)  # as the import hook does, after tests/conftest.py
REFUSED = (jaxtyping.TypeCheckError, BeartypeCallHintViolation)


def test_every_new_form_is_checked():
    results = {}

    @checked
    def double(x: Float[Tensor, "B D"], scale: float = 2.0) -> Float[Tensor, "B D"]:
        return results.get("x", x * scale)

    good = torch.ones(2, 3)
    for _ in range(2):
        assert torch.equal(double(good), 2 * good)
        assert torch.equal(double(good, scale=3.0), 3 * good)
        for bad in (torch.ones(3), torch.ones(2, 3, dtype=torch.int64), [1.0]):
            with pytest.raises(REFUSED):
                double(bad)
        with pytest.raises(REFUSED):
            double(good, scale="3")
        for bad in (torch.ones(2, 4), torch.ones(2, 3, dtype=torch.int64), None):
            results["x"] = bad
            with pytest.raises(REFUSED):
                double(good)
        results.clear()


def test_functions_without_shapes_and_dataclasses_are_checked():
    @checked
    def more(number: int) -> int:
        return number + 1 if number else None

    @checked
    @dataclasses.dataclass
    class Pair:
        name: str
        values: Hidden

    assert more(1) == 2
    for bad in ("1", 0):
        with pytest.raises(REFUSED):
            more(bad)
    values = torch.ones(1, 2, 3)
    assert Pair("a", values).values is values
    for name, other in ((1, values), ("a", values[0])):
        with pytest.raises(REFUSED):
            Pair(name, other)


def test_forms_tell_apart_what_checks_tell_apart():
    tensors = [torch.ones(2), torch.ones(2, 1), torch.ones(2).double(), torch.ones(2).numpy()]
    values = [*tensors, 1, 1.0, True, "1", "2", None, (1,), (1.0,), [1], ["1"], {"a": 1}, {"a": "1"}, {1: 1}, int, str]
    assert len({form(value) for value in values}) == len(values)
    assert form([1, 2]) == form([3])
    assert form(torch.ones(2)) == form(torch.zeros(2))


def test_the_package_is_under_it():
    norm = RMSNorm(4, 1e-5)
    for _ in range(2):
        assert norm(torch.ones(2, 4)).shape == (2, 4)
        with pytest.raises(REFUSED):
            norm(torch.ones(2, 4, dtype=torch.int64))
