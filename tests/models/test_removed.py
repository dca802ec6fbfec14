import copy

import pytest
import torch
from diffusers import StableDiffusionControlNetPipeline
from diffusers.models.resnet import ResnetBlock2D
from peft import LoraConfig

from distillery.core.errors import DistilleryError
from distillery.models.control_adapter import ControlAdapter
from distillery.models.export import export_dense
from distillery.models.layers import layer_shapes, low_rank_layers
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.ranks import plan_ranks
from distillery.models.lowrank.removed import is_gone, layers_kept, removable_blocks
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel, lora_targets
from tiny_models import tiny_controlnet, tiny_pipeline, tiny_unet, unet_inputs

REMOVED = ["down_blocks.0.attentions.0", "mid_block.resnets.1", "up_blocks.1.resnets.0"]


@torch.no_grad()
def run(unet, **control):
    return unet(**unet_inputs(), **control).sample


def skipping(unet, removed):
    """The dense U-Net with hooks that take away what removed blocks add to their input."""
    dense = copy.deepcopy(unet)
    for name in removed:
        block = dense.get_submodule(name)
        if isinstance(block, ResnetBlock2D):
            block.conv2.register_forward_hook(lambda m, args, out: torch.zeros_like(out))
        else:
            block.register_forward_hook(lambda m, args, out: (args[0],))
    return dense


@pytest.fixture(scope="module")
def pruned(teacher):
    return factorise_unet(teacher, {}, removed=REMOVED)[0]


@pytest.fixture(scope="module")
def small(teacher):
    ranks = layers_kept(plan_ranks(teacher), REMOVED)
    return factorise_unet(teacher, ranks, removed=REMOVED)[0]


def test_it_is_the_dense_unet_with_skips_in_place_of_its_blocks(teacher, pruned):
    expected = run(skipping(teacher, REMOVED))
    torch.testing.assert_close(run(pruned), expected, rtol=0, atol=1e-6)
    assert (expected - run(teacher)).abs().max() > 1e-3


@pytest.fixture(scope="module")
def shallow():
    """A layer less in each block: each kind of block is there, and there are fewer."""
    return tiny_unet(layers_per_block=1)


@pytest.mark.parametrize("name", removable_blocks(tiny_unet(layers_per_block=1)))
def test_every_block_can_be_removed(shallow, name):
    student = factorise_unet(shallow, {}, removed=[name])[0]
    expected = run(skipping(shallow, [name]))
    torch.testing.assert_close(run(student), expected, rtol=0, atol=1e-6)
    names = shallow.state_dict().keys()
    assert names - student.state_dict().keys() == {n for n in names if is_gone(n, [name])}


def test_shortcuts_stay_and_may_be_low_rank(teacher):
    shortcut = "up_blocks.1.resnets.0.conv_shortcut"
    student = factorise_unet(teacher, {shortcut: 4}, removed=REMOVED)[0]
    assert list(low_rank_layers(student)) == [shortcut]
    assert "up_blocks.1.resnets.0.conv1" not in layer_shapes(student)


def test_save_and_load_keep_every_bit(small, tmp_path):
    small.save_pretrained(tmp_path)
    loaded = LowRankUNet2DConditionModel.from_pretrained(tmp_path)
    assert loaded.config.removed == sorted(REMOVED)
    assert torch.equal(run(loaded), run(small))


def test_half_precision_and_skeletons_know_removed_blocks(small, tmp_path):
    small.save_pretrained(tmp_path)
    half = LowRankUNet2DConditionModel.from_pretrained(tmp_path, torch_dtype=torch.float16)
    assert half.dtype == torch.float16
    empty = LowRankUNet2DConditionModel.empty(small.config, small.config.ranks, REMOVED)
    assert {n: p.shape for n, p in empty.named_parameters()} == {
        n: p.shape for n, p in small.named_parameters()
    }
    assert all(p.is_meta for p in empty.parameters())
    whole = LowRankUNet2DConditionModel.empty(small.config, {})
    assert whole.config.removed == []


def test_a_training_step_reaches_every_layer_with_and_without_checkpointing(small):
    gradients = []
    for checkpointing in (False, True):
        student = copy.deepcopy(small).train()
        if checkpointing:
            student.enable_gradient_checkpointing()
        before = run(student)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
        student(**unet_inputs()).sample.square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in student.named_parameters()})
        optimizer.step()
        assert not torch.equal(run(student), before)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-7)


def test_the_residuals_of_the_teachers_controlnet_fit(teacher, pruned):
    torch.manual_seed(0)
    controlnet = tiny_controlnet(teacher)
    for parameter in controlnet.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    with torch.no_grad():
        down, mid = controlnet(
            **unet_inputs(), controlnet_cond=torch.rand(2, 3, 64, 64), return_dict=False
        )
    control = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
    expected = run(skipping(teacher, REMOVED), **control)
    torch.testing.assert_close(run(pruned, **control), expected, rtol=0, atol=1e-5)
    assert not torch.allclose(run(pruned, **control), run(pruned))


def test_it_samples_in_a_pipeline_with_a_controlnet(teacher, small):
    pipeline = tiny_pipeline()
    parts = {**pipeline.components, "unet": small, "controlnet": tiny_controlnet(teacher)}
    pipe = StableDiffusionControlNetPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    image = pipe(
        "a red circle", image=torch.rand(1, 3, 64, 64), num_inference_steps=2, output_type="pt",
        generator=torch.Generator().manual_seed(0),
    ).images  # fmt: skip
    assert image.shape == (1, 3, 64, 64)
    assert bool(image.isfinite().all())


def test_lora_goes_to_the_blocks_that_are_left(small):
    student = copy.deepcopy(small)
    student.add_adapter(LoraConfig(r=2, target_modules=lora_targets(student, ["to_q", "conv1"])))
    adapted = {n for n, p in student.named_parameters() if p.requires_grad}
    assert adapted
    assert not any(is_gone(name, REMOVED) for name in adapted)
    student(**unet_inputs()).sample.square().mean().backward()


def test_random_students_have_the_same_blocks(small):
    random = LowRankUNet2DConditionModel.from_config(small.config)
    assert random.state_dict().keys() == small.state_dict().keys()
    assert not torch.equal(run(random), run(small))


def test_the_report_leaves_removed_layers_out(teacher):
    ranks = layers_kept(plan_ranks(teacher), REMOVED)
    student, rows = factorise_unet(teacher, ranks, removed=REMOVED)
    assert {row["name"] for row in rows} == set(ranks)
    assert student.config.removed == sorted(REMOVED)


def test_what_needs_every_block_is_refused_with_the_reason(teacher, small, tmp_path):
    for merge in (small.to_dense, lambda: export_dense(small, tmp_path)):
        with pytest.raises(DistilleryError, match=r"3 blocks are removed, first down_blocks\.0"):
            merge()
    with pytest.raises(DistilleryError, match="encoder has all of its blocks"):
        ControlAdapter.from_unet(small)


@pytest.mark.parametrize(
    "name", ["mid_block", "down_blocks.0.resnets.9", "down_blocks.0.downsamplers.0", "conv_in"]
)
def test_names_that_are_no_block_are_refused(teacher, name):
    with pytest.raises(DistilleryError, match=f"removed: '{name}' is no residual or attention"):
        factorise_unet(teacher, {}, removed=[name])[0]


def test_ranks_inside_a_removed_block_are_refused(teacher):
    ranks = {"mid_block.resnets.1.conv1": 2}
    with pytest.raises(DistilleryError, match=r"mid_block\.resnets\.1\.conv1 is in a removed"):
        factorise_unet(teacher, ranks, removed=REMOVED)[0]
