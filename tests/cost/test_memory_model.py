"""The prediction on the meta device against the CPU allocator's own record of a real step."""

import copy
from functools import partial

import pytest
import torch
from diffusers import ControlNetModel
from torch import nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from distillery.cost.memory_model import Allocations, predict_evaluation, predict_step
from distillery.cost.workload import Workload, controlnet_alone, unet_alone
from distillery.models.student_controlnet.model import PRESETS, build_student
from distillery.train.rounding import narrow
from tiny_models import tiny_unet


def unet_loss(unet, batch_size=2):
    device = next(unet.parameters()).device
    side, width = unet.config.sample_size, unet.config.cross_attention_dim
    sample = torch.ones(batch_size, unet.config.in_channels, side, side, device=device)
    text = torch.ones(batch_size, 77, width, device=device)
    steps = torch.ones(batch_size, device=device)
    return lambda: unet(sample, steps, encoder_hidden_states=text).sample.square().mean()


def allocator_peak(job):
    """Peak of bytes allocated during a job, from the profiler's memory events."""
    job()  # whatever is allocated once is allocated now
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        job()
    events = record.profiler.kineto_results.events()
    allocations = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    live = peak = 0
    for _, size in allocations:
        live += size
        peak = max(peak, live)
    return peak


def with_side(unet, side):
    unet.register_to_config(sample_size=side)
    return unet


CASES = {
    "all trained": lambda u: u,
    "attention trained": lambda u: _train_only(u, "attn"),
    "checkpointing": lambda u: _checkpointing(u),
}


def _train_only(unet, part):
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(part in name)
    return unet


def _checkpointing(unet):
    unet.train().enable_gradient_checkpointing()
    return unet


@pytest.mark.parametrize(("case", "side"), [*((c, 16) for c in CASES), ("checkpointing", 32)])
def test_predicted_peak_is_within_a_tenth_of_tracked_allocations(case, side):
    unet = CASES[case](with_side(tiny_unet(), side))
    trained = [p for p in unet.parameters() if p.requires_grad]
    on_meta = CASES[case](with_side(copy.deepcopy(unet), side)).to("meta")
    trained_on_meta = [p for p in on_meta.parameters() if p.requires_grad]
    found = predict_step(unet_loss(on_meta), trained_on_meta, held=[on_meta])
    for parameter in trained:
        parameter.grad = None
    loss = unet_loss(unet)

    def step():
        for parameter in trained:
            parameter.grad = None
        loss().backward()

    tracked = allocator_peak(step)
    predicted = found.gradients + found.activations
    assert predicted == pytest.approx(tracked, rel=0.1)
    assert found.weights == 4 * sum(p.numel() for p in unet.parameters())
    assert found.optimiser == 8 * sum(p.numel() for p in trained)


def test_weights_in_bfloat16_take_twelve_bytes_where_others_take_sixteen():
    """And the update of the largest of them four float32 copies, more than so few activations."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = nn.Sequential(nn.Linear(400, 300, bias=False), nn.Linear(300, 400, bias=False))
        model.to("meta")
        if dtype == torch.bfloat16:
            narrow(model.parameters())
        sample = torch.ones(1, 400, device="meta")
        found[dtype] = predict_step(
            lambda net=model, x=sample: net(x).sum(), list(model.parameters()), held=[model],
            dtype=torch.bfloat16,
        )  # fmt: skip
    wide, slim = found[torch.float32], found[torch.bfloat16]
    count = 2 * 400 * 300
    assert (wide.weights, wide.optimiser) == (4 * count, 8 * count)
    assert (slim.weights, slim.gradients, slim.optimiser) == (2 * count, 2 * count, 8 * count)
    assert slim.activations == 4 * 4 * 400 * 300


def evaluated(kind):
    """A model and its evaluation, for a model on any device."""
    if kind == "U-Net":
        unet = with_side(tiny_unet(), 32)
        return unet, lambda net: Workload.of(net, 2, 77, side=32), unet_alone
    teacher = ControlNetModel.from_unet(tiny_unet())
    net = build_student(teacher, PRESETS[kind], seed=0) if kind in PRESETS else teacher
    inputs = partial(Workload.of, batch_size=2, num_tokens=77, side=32)
    return net, inputs, controlnet_alone


@pytest.mark.parametrize("kind", ["U-Net", "teacher", "reduced_channel", "loha", "distilled"])
def test_predicted_evaluation_is_within_a_tenth_of_tracked_allocations(kind):
    model, inputs, run = evaluated(kind)
    # Channels last, the CPU's convolutions make no reordered copies, which are not modelled.
    model.requires_grad_(False).eval().to(memory_format=torch.channels_last)
    on_meta = copy.deepcopy(model).to("meta")
    found = predict_evaluation(partial(run(on_meta), inputs(on_meta)), held=[on_meta])
    job = torch.no_grad()(partial(run(model), inputs(model)))
    assert found.activations == pytest.approx(allocator_peak(job), rel=0.1)
    assert found.weights == 4 * sum(p.numel() for p in model.parameters())
    assert found.peak == found.weights + found.activations


def test_saved_bytes_are_those_that_autograd_packs():
    unet = with_side(tiny_unet(), 16)
    weights = {p.untyped_storage().data_ptr() for p in unet.parameters()}
    packed = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            packed[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = unet_loss(unet)()
    assert kept.requires_grad
    on_meta = copy.deepcopy(unet).to("meta")
    found = predict_step(unet_loss(on_meta), list(on_meta.parameters()), held=[on_meta])
    assert found.saved == pytest.approx(sum(packed.values()), rel=0.1)


def test_a_step_by_hand():
    layer = nn.Linear(100, 50, bias=False, device="meta")
    x = torch.empty(10, 100, device="meta")
    found = predict_step(lambda: layer(x).sum(), [layer.weight], held=[layer])
    weight = 4 * 100 * 50
    # The update is the peak: the output (10 x 50) is gone, gradient and moments are there.
    assert (found.weights, found.optimiser, found.teacher) == (weight, 2 * weight, 0)
    assert weight <= found.gradients + found.activations <= weight + 4 * (10 * 50 + 2)
    assert layer.weight.grad is None


def test_a_teacher_counts_apart_and_shared_weights_count_once():
    student, teacher = nn.Linear(8, 8, device="meta"), nn.Linear(8, 4, device="meta")
    x = torch.empty(2, 8, device="meta")
    found = predict_step(
        lambda: student(x).sum(), list(student.parameters()), held=[student],
        teacher=[teacher, student],
    )  # fmt: skip
    assert found.weights == 4 * (64 + 8)
    assert found.teacher == 4 * (32 + 4)
    assert found.peak == sum(
        (found.weights, found.gradients, found.optimiser, found.teacher, found.activations)
    )


def test_attention_on_meta_keeps_no_matrix_of_tokens_by_tokens():
    q = torch.empty(1, 1, 4096, 8, device="meta", requires_grad=True)
    found = predict_step(
        lambda: functional.scaled_dot_product_attention(q, q, q).sum(), [], held=[]
    )
    assert found.peak < 4096 * 4096


def test_released_storages_are_subtracted():
    with Allocations() as during:
        for _ in range(3):
            torch.empty(1000, device="meta") + 1
    assert during.live_bytes == 0
    assert during.peak_bytes == 8000
