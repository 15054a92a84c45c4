"""Recordings by themselves: what they copy, what they depend on, and who has them."""

import dataclasses
import gc
from typing import NamedTuple

import pytest
import torch
from replayed import ReplayedGraphs

from bytelm.graphs import CudaRecorder, Graphs, Lender, TensorInPlace


class Pair(NamedTuple):
    one: torch.Tensor
    other: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Scaled:
    tensor: torch.Tensor
    factor: int


def add(pair, parts, scaled, place, number):
    place.tensor.add_(0)
    total = pair.one + pair.other + sum(parts[0]) + parts[1]["deep"] + scaled.tensor * scaled.factor
    return Pair(total + place.tensor + number, place.tensor * 2)


@pytest.fixture(
    params=[
        pytest.param(("cpu", ReplayedGraphs), id="replayed"),
        pytest.param(
            ("cuda", lambda: Graphs(CudaRecorder(torch.device("cuda")))),
            id="cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
        ),
    ]
)
def device_and_graphs(request):
    device, make = request.param
    return torch.device(device), make()


def arguments(device, size=3, start=0, factor=2):
    a, b, c, d, e = (torch.arange(size, dtype=torch.float32, device=device) + start + n for n in range(5))
    return Pair(a, b), ([c], {"deep": d}), Scaled(e, factor)


def test_a_replay_is_the_function(device_and_graphs):
    device, graphs = device_and_graphs
    place = TensorInPlace(torch.ones(3, device=device))
    for start in range(4):
        args = (*arguments(device, start=start), place, 7)
        for found, expected in zip(graphs.run(add, *args), add(*args), strict=True):
            assert torch.equal(found, expected)
    assert graphs.num_recorded == 1


def test_results_lie_where_they_lay(device_and_graphs):
    device, graphs = device_and_graphs
    place = TensorInPlace(torch.ones(3, device=device))
    first = graphs.run(add, *arguments(device), place, 7)
    before = first.one.clone()
    second = graphs.run(add, *arguments(device, start=1), place, 7)
    assert second.one.data_ptr() == first.one.data_ptr()
    assert not torch.equal(first.one, before)


@pytest.mark.parametrize(
    "change", [{"size": 4}, {"factor": 3}, {"number": 8}, {"place": True}, {"function": True}], ids=str
)
def test_other_shapes_numbers_functions_and_addresses_are_recorded_anew(device_and_graphs, change):
    device, graphs = device_and_graphs
    size, factor = change.get("size", 3), change.get("factor", 2)
    place = TensorInPlace(torch.ones(3, device=device))
    graphs.run(add, *arguments(device), place, 7)
    again = TensorInPlace(torch.ones(size, device=device)) if {"size", "place"} & set(change) else place
    args = (*arguments(device, size, 5, factor), again, change.get("number", 7))
    function = (lambda *args: add(*args)) if "function" in change else add
    assert torch.equal(graphs.run(function, *args).one, add(*args).one)
    assert graphs.num_recorded == 2


def test_what_is_used_in_place_is_not_copied(device_and_graphs):
    device, graphs = device_and_graphs
    place = TensorInPlace(torch.ones(3, device=device))
    graphs.run(add, *arguments(device), place, 7)
    place.tensor.fill_(5)
    assert graphs.run(add, *arguments(device), place, 7).other.tolist() == [10, 10, 10]
    assert graphs.num_recorded == 1


def test_recordings_do_not_pile_up(monkeypatch):
    monkeypatch.setattr("bytelm.graphs._RECORDINGS", 3)
    graphs = ReplayedGraphs()
    for number in (0, 1, 2, 0, 3, 0):
        assert graphs.run(torch.add, torch.ones(2), number).tolist() == [1 + number] * 2
        assert len(graphs._recordings) <= 3
    assert graphs.num_recorded == 5


class Borrower:
    def __init__(self, graphs):
        self.graphs = graphs


def test_borrowers_have_their_own_and_leave_them_to_the_next():
    lender = Lender(ReplayedGraphs)
    first, second = lender.lend(Borrower), lender.lend(Borrower)
    assert first.graphs is not second.graphs
    left = first.graphs
    del first
    gc.collect()
    assert lender.lend(Borrower).graphs is left
