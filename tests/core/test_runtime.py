"""Recorded functions copy in, replay, read out; what can't be had is said in one line."""

from dataclasses import dataclass

import torch
from torch import Tensor

from distillery.core import runtime
from distillery.core.runtime import Captured, Captures, Runtime
from distillery.core.trees import mapped, tensors_in
from fake_graphs import FakeGraphs, make_input


@dataclass(frozen=True)
class Pair:
    name: str
    values: dict[str, Tensor]


def test_a_recorded_function_gives_what_it_gave_op_by_op():
    graphs, seen = FakeGraphs(), []

    def run(x: Tensor, pair: Pair) -> Tensor:
        seen.append(x)
        return 2 * x + pair.values["y"]

    recorded = Captured(run, graphs, num_warm_up=2)
    results = [
        recorded(make_input(value), Pair("p", {"y": make_input(1.0)})).tolist()
        for value in range(5)
    ]
    assert results == [[2.0 * value + 1] * 3 for value in range(5)]
    assert (graphs.num_warm_ups, graphs.num_recorded, graphs.num_replayed) == (2, 1, 3)
    assert len({id(x) for x in seen[2:]}) == 1  # always the same memory


class Ending(FakeGraphs):
    """Ends a recording that failed as CUDA does: with an error of its own."""

    def record(self, run):
        try:
            return super().record(run)
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")


def test_what_a_recording_failed_for_is_said_not_what_its_end_says(capsys):
    recorded = Captured(lambda x: x + 1, Ending("it waits for the device"), 0)
    assert float(recorded(make_input(1))[0]) == 2
    said = capsys.readouterr().err
    assert said.startswith("runtime graph: the step can't be recorded (it waits for the device);")


def test_results_lie_in_the_same_memory():
    recorded = Captured(lambda x: x + 1, FakeGraphs())
    recorded(make_input(0))
    first, second = recorded(make_input(0)), recorded(make_input(1))
    assert first is second


def test_every_shape_is_recorded_once():
    graphs = FakeGraphs()
    recorded = Captures(lambda x: x.sum(), graphs)
    shapes = [(2, 3), (4, 3), (2, 3), (2, 3), (4, 3)]
    assert [float(recorded(torch.ones(shape))) for shape in shapes] == [6, 12, 6, 6, 12]
    assert (graphs.num_warm_ups, graphs.num_recorded, graphs.num_replayed) == (2, 2, 3)


def test_what_cannot_be_recorded_runs_eagerly_and_says_why_once(capsys):
    undone, graphs = [], FakeGraphs("operation not permitted when stream is capturing\nmore")
    recorded = Captured(lambda x: x + 1, graphs, 0, undo=lambda: undone.append(1))
    assert [float(recorded(make_input(value))[0]) for value in range(3)] == [1, 2, 3]
    assert undone == [1]
    assert capsys.readouterr().err == (
        "runtime graph: the step can't be recorded (operation not permitted when stream is "
        "capturing); running eagerly\n"
    )


def test_a_runtime_that_a_device_has_not_is_named(capsys, monkeypatch):
    from torch._inductor import cpp_builder, exc

    def missing() -> str:
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", missing)
    cpu = torch.device("cpu")
    assert [runtime.usable(kind, cpu) for kind in runtime.KINDS] == ["eager"] * 3
    assert capsys.readouterr().err.splitlines() == [
        "runtime compile: there is no C++ compiler; install g++; running eagerly",
        "runtime graph: CUDA graphs need a CUDA device, and this is cpu; running eagerly",
    ]


def test_what_cuda_cannot_compile_is_recorded(capsys, monkeypatch):
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: False)
    assert runtime.usable("compile", torch.device("cuda")) == "graph"
    assert capsys.readouterr().err == (
        "runtime compile: compiling for CUDA needs Triton, which is not installed; "
        "running as graph\n"
    )


def test_trees_keep_their_form():
    tree = [Pair("p", {"y": torch.ones(2)}), (torch.zeros(1), "text", None)]
    doubled = mapped(tree, lambda tensor: tensor * 2)
    assert doubled[0].name == "p"
    assert doubled[0].values["y"].tolist() == [2, 2]
    assert doubled[1][1:] == ("text", None)
    assert len(tensors_in(tree)) == 2


def test_on_the_cpu_auto_leaves_weights_where_they_are():
    conv = torch.nn.Conv2d(4, 4, 3)
    strides = conv.weight.stride()
    Runtime().lay_out(conv, 1)
    assert conv.weight.stride() == strides
    Runtime(memory_format="channels_last").lay_out(conv, 1)
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
