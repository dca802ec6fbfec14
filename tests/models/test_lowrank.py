import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distillery.core.errors import DistilleryError
from distillery.models.architectures import build_meta
from distillery.models.layers import LowRankConv2d, LowRankLinear, layer_shapes, low_rank_layers
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.ranks import plan_ranks
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel, lora_targets
from tiny_models import UNET_CONFIG, tiny_pipeline, tiny_unet, unet_inputs

WEIGHTS = "diffusion_pytorch_model.distillery.safetensors"


@torch.no_grad()
def run(unet, dtype=torch.float32):
    return unet(**unet_inputs(dtype)).sample


class RealShapes(TorchDispatchMode):
    """Records the shape of every tensor that any operation puts on a real device."""

    def __init__(self):
        super().__init__()
        self.shapes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.shapes |= {
            tuple(leaf.shape)
            for leaf in tree_leaves(result)
            if isinstance(leaf, torch.Tensor) and not leaf.is_meta
        }
        return result


def test_every_kind_of_layer_is_replaced(student, unet):
    replaced = low_rank_layers(student)
    assert set(layer_shapes(unet)) - set(replaced) == {"conv_in", "conv_out"}
    for ending in (
        "time_embedding.linear_1",
        "time_emb_proj",
        "attn2.to_out.0",
        "ff.net.0.proj",
        "attentions.0.proj_in",
        "downsamplers.0.conv",
        "upsamplers.0.conv",
        "conv_shortcut",
    ):
        names = [name for name in replaced if name.endswith(ending)]
        dense = type(unet.get_submodule(names[0])).__name__
        assert {type(replaced[name]).__name__ for name in names} == {f"LowRank{dense}"}
    assert {type(layer) for layer in replaced.values()} == {LowRankLinear, LowRankConv2d}


def test_the_full_size_student_has_every_layer_of_stable_diffusion():
    unet = build_meta("sd21")["unet"]
    student = LowRankUNet2DConditionModel.empty(unet.config, plan_ranks(unet))
    assert len(low_rank_layers(student)) == len(layer_shapes(unet)) - 2 == 280
    assert all(parameter.is_meta for parameter in student.parameters())


def test_save_and_load_keep_config_and_every_bit(student, tmp_path):
    student.save_pretrained(tmp_path)
    loaded = LowRankUNet2DConditionModel.from_pretrained(tmp_path)
    assert torch.equal(run(loaded), run(student))
    assert loaded.config.ranks == student.config.ranks == plan_ranks(tiny_unet())
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["_class_name"] == "LowRankUNet2DConditionModel"
    assert config["ranks"]["mid_block.resnets.0.conv1"] == 21
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", WEIGHTS}
    assert not loaded.training


def test_two_saves_have_the_same_bytes(unet, tmp_path):
    for folder in ("first", "second"):
        student = factorise_unet(unet, plan_ranks(unet))[0]
        student.save_pretrained(tmp_path / folder)
    for name in ("config.json", WEIGHTS):
        first, second = (tmp_path / folder / name for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
def test_loading_never_allocates_a_dense_weight(student, unet, tmp_path, low_cpu_mem_usage):
    student.save_pretrained(tmp_path)
    with RealShapes() as real:
        loaded = LowRankUNet2DConditionModel.from_pretrained(
            tmp_path, low_cpu_mem_usage=low_cpu_mem_usage
        )
    assert_no_dense_weight(real.shapes, loaded, unet)
    assert torch.equal(run(loaded), run(student))


def test_construction_never_allocates_a_dense_weight(unet):
    with RealShapes() as real:
        model = LowRankUNet2DConditionModel(**UNET_CONFIG, ranks=plan_ranks(unet))
    assert_no_dense_weight(real.shapes, model, unet)
    assert bool(run(model).isfinite().all())
    # The tracker does see a dense model being built.
    with RealShapes() as real:
        tiny_unet()
    with pytest.raises(AssertionError, match="dense"):
        assert_no_dense_weight(real.shapes, model, unet)


def assert_no_dense_weight(shapes, model, unet):
    kept = {tuple(value.shape) for value in model.state_dict().values()}
    dense = {tuple(unet.get_submodule(name).weight.shape) for name in low_rank_layers(model)}
    assert len(dense - kept) > 10
    assert not shapes & (dense - kept), "dense weights were allocated"
    assert kept <= shapes | {tuple(value.shape) for value in model.state_dict().values()}
    assert not any(value.is_meta for value in model.state_dict().values())


@pytest.mark.parametrize(
    "changes", [{"attention_type": "gated"}, {"time_embedding_type": "fourier"}], ids=str
)
def test_computed_parameters_and_buffers_survive_construction(changes):
    dense = tiny_unet(**changes)
    ranks = plan_ranks(dense)
    torch.manual_seed(0)
    for model in (
        LowRankUNet2DConditionModel(**{**UNET_CONFIG, **changes}, ranks=ranks),
        factorise_unet(dense, ranks)[0],
    ):
        tensors = [*model.parameters(), *model.buffers()]
        assert not any(tensor.is_meta for tensor in tensors)
        assert bool(run(model).isfinite().all())
        for name, buffer in dense.named_buffers():
            assert torch.equal(model.get_buffer(name), buffer)


def test_skeletons_stay_on_meta(unet):
    ranks = plan_ranks(unet)
    with torch.device("meta"):
        outer = LowRankUNet2DConditionModel(**UNET_CONFIG, ranks=ranks)
    for model in (outer, LowRankUNet2DConditionModel.empty(unet.config, ranks)):
        assert all(parameter.is_meta for parameter in model.parameters())


def test_half_precision(student, tmp_path):
    student.save_pretrained(tmp_path)
    loaded = LowRankUNet2DConditionModel.from_pretrained(tmp_path, torch_dtype=torch.float16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float16}
    assert loaded.dtype == torch.float16
    half = factorise_unet(tiny_unet().half(), student.config.ranks)[0]
    difference = (run(half.float()) - run(student)).abs().max()
    assert difference < 2e-2


def test_weights_that_do_not_fit_the_config_are_refused(student, tmp_path):
    student.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    missing = {name: value for name, value in tensors.items() if "conv_out" not in name}
    for wrong in (missing, {**tensors, "extra.weight": torch.zeros(2)}):
        save_file(wrong, tmp_path / WEIGHTS, metadata={"format": "pt"})
        with pytest.raises(DistilleryError, match=r"tensors are (missing: conv|unexpected: ext)"):
            LowRankUNet2DConditionModel.from_pretrained(tmp_path)


def test_only_safetensors_are_read(student, tmp_path):
    student.save_pretrained(tmp_path, safe_serialization=False)
    assert not (tmp_path / WEIGHTS).exists()
    with pytest.raises(OSError, match="safetensors"):
        LowRankUNet2DConditionModel.from_pretrained(tmp_path)
    with pytest.raises(DistilleryError, match="only safetensors"):
        LowRankUNet2DConditionModel.from_pretrained(tmp_path, use_safetensors=False)


def test_ranks_of_another_architecture_are_refused():
    with pytest.raises(DistilleryError, match=r"no layer 'down_blocks\.7\.conv'"):
        LowRankUNet2DConditionModel(**UNET_CONFIG, ranks={"down_blocks.7.conv": 3})
    with pytest.raises(DistilleryError, match="mid_block: a UNetMidBlock2DCrossAttn cannot"):
        LowRankUNet2DConditionModel(**UNET_CONFIG, ranks={"mid_block": 3})


def test_without_ranks_it_is_the_dense_unet(unet):
    model = factorise_unet(unet, {})[0]
    assert torch.equal(run(model), run(unet))
    assert not low_rank_layers(model)


def test_to_dense_is_the_same_function(unet):
    student = factorise_unet(unet.double(), plan_ranks(unet))[0]
    dense = student.to_dense()
    assert type(dense) is UNet2DConditionModel
    assert "ranks" not in dense.config
    assert {p.shape for p in dense.parameters()} == {p.shape for p in unet.parameters()}
    difference = (run(dense, torch.float64) - run(student, torch.float64)).abs().max()
    assert difference < 1e-10


def test_full_rank_student_is_the_teacher(unet):
    unet = unet.double()
    ranks = {name: shape.full_rank for name, shape in layer_shapes(unet).items()}
    student = factorise_unet(unet, ranks)[0]
    assert (run(student, torch.float64) - run(unet, torch.float64)).abs().max() < 1e-9


def test_student_shares_no_memory_with_the_teacher(unet):
    student = factorise_unet(unet, plan_ranks(unet))[0]
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())


def test_gradient_checkpointing_gives_the_same_gradients(student):
    gradients = []
    for checkpointing in (False, True):
        student.train().zero_grad()
        if checkpointing:
            student.enable_gradient_checkpointing()
        student(**unet_inputs()).sample.square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in student.named_parameters()})
    assert student.is_gradient_checkpointing
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-7)
    assert sum(bool(gradient.any()) for gradient in gradients[0].values()) > 300


def test_attention_processors_can_be_exchanged(student):
    before = run(student)
    student.set_attn_processor(AttnProcessor())
    assert {type(value) for value in student.attn_processors.values()} == {AttnProcessor}
    torch.testing.assert_close(run(student), before, rtol=0, atol=1e-5)
    with pytest.raises(DistilleryError, match="to_dense"):
        student.fuse_qkv_projections()


def test_lora_trains_on_both_factors(student):
    before = run(student)
    targets = lora_targets(student, ["to_q", "ff.net.2", "conv1", "conv_out"])
    student.add_adapter(LoraConfig(r=2, target_modules=targets))
    trained = {name for name, p in student.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_" in name for name in trained)
    assert {name.split(".")[-4] for name in trained} > {"reduce", "expand"}
    torch.testing.assert_close(run(student), before, rtol=0, atol=0)
    optimizer = torch.optim.SGD([p for p in student.parameters() if p.requires_grad], lr=10.0)
    student(**unet_inputs()).sample.square().mean().backward()
    optimizer.step()
    assert not torch.equal(run(student), before)
    student.disable_adapters()
    assert torch.equal(run(student), before)
    with pytest.raises(DistilleryError, match="ends in any of"):
        lora_targets(student, ["to_qq"])


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    tiny_pipeline().save_pretrained(folder)
    return folder


def image_of(pipeline):
    generator = torch.Generator().manual_seed(0)
    pipeline.set_progress_bar_config(disable=True)
    arguments = {"num_inference_steps": 2, "generator": generator, "output_type": "np"}
    return torch.from_numpy(pipeline("a red circle", **arguments).images)


def test_the_student_replaces_the_unet_of_a_pipeline(teacher_folder, student, tmp_path):
    pipeline = StableDiffusionPipeline.from_pretrained(teacher_folder, unet=student)
    image = image_of(pipeline)
    assert image.shape == (1, 64, 64, 3)
    teacher = StableDiffusionPipeline.from_pretrained(teacher_folder)
    assert not torch.allclose(image, image_of(teacher), atol=1e-4)

    teacher.unet = student.to_dense()
    torch.testing.assert_close(image_of(teacher), image, rtol=0, atol=1e-4)

    pipeline.save_pretrained(tmp_path)
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path)
    assert type(loaded.unet) is LowRankUNet2DConditionModel
    assert torch.equal(image_of(loaded), image)
