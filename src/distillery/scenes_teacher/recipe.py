"""The recipe's driver: from an empty folder to the whole scenes teacher.

In: a recipe (every number of the training), an output folder and a work folder. Out: the teacher
in diffusers' layout. Each finished component is kept in the work folder, and each training saves
its state there every hundred steps: the same call again goes on where it stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from distillery.core.artifacts import hash_json
from distillery.core.errors import DistilleryError
from distillery.core.publishing import publish
from distillery.data.scenes.draw import TEACHER_SEEDS, draw_scene
from distillery.models.load import load_network
from distillery.scenes_teacher import KINDS, clip, controlnet, export, probe, tokens, unet, vae
from distillery.scenes_teacher.pca import PatchPca

_CONTROLNETS = tuple(f"controlnet_{kind}" for kind in KINDS)
COMPONENTS = ("vae", "clip", "unet", *_CONTROLNETS)
IMAGE_PX = 64
# `prepare_teacher` is not watched for what training needs: where it trains nothing, which is the
# rule, a changed loss must not make the teacher, and all that follows from it, again.
__computes__ = False
RECIPE = Path(__file__).with_name("recipe.yaml")


@dataclass(frozen=True)
class Workshop:
    """What all components share; each is built on first use, from the recipe alone."""

    recipe: Mapping
    work: Path
    seed: int
    device: str

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        part = self.recipe["tokenizer"]
        captions = [draw_scene(part["scenes_seed"], i).caption for i in range(part["num_captions"])]
        return tokens.build_tokenizer(captions, part["context_length"])

    @cached_property
    def encoder(self) -> tuple[AutoencoderKL, PatchPca]:
        """The VAE with an untrained decoder, and the projection that its encoder computes."""
        return vae.pca_of_recipe(self.recipe["vae"], seed=self.seed)

    def encode(self, pixels: np.ndarray) -> Tensor:
        """Scaled latents of pixels in [-1, 1]."""
        model, pca = self.encoder
        return torch.from_numpy(pca.encode(pixels)) * model.config.scaling_factor

    def state(self, component: str) -> Path:
        """Where a component's training keeps its state; a phase's number is appended."""
        return self.work / "training" / component

    def load_unet(self) -> tuple[UNet2DConditionModel, CLIPTextModel]:
        folder = self.work / "unet"
        networks = (
            load_network(UNet2DConditionModel.from_pretrained, folder / "unet"),
            load_network(CLIPTextModel.from_pretrained, folder / "text_encoder"),
        )
        return tuple(network.to(self.device) for network in networks)


def train_scenes_teacher(
    recipe: Mapping,
    out: Path,
    work: Path,
    *,
    num_threads: int,
    seed: int,
    device: str,
) -> None:
    """Train what is missing in `work`, then write the teacher to `out` (replaced as a whole).

    Raises `DistilleryError` where a seed of the recipe is outside of the reserved range, or a loss
    is not finite.
    """
    check_recipe(recipe)
    torch.set_num_threads(num_threads)
    for component in COMPONENTS:
        train_component(component, recipe, work, seed=seed, device=device)
    assemble(recipe, out, work, seed=seed)


def check_recipe(recipe: Mapping) -> None:
    """Refuse scene seeds that a user's data may hold."""
    for part, numbers in recipe.items():
        if numbers.get("scenes_seed") not in TEACHER_SEEDS:
            raise DistilleryError(
                f"recipe: {part}.scenes_seed must be in [{TEACHER_SEEDS.start}, "
                f"{TEACHER_SEEDS.stop}), the range that no data set may use"
            )


def train_component(component: str, recipe: Mapping, work: Path, *, seed: int, device: str) -> None:
    """Train one of `COMPONENTS` into `work/<component>`; does nothing where it is there.

    Raises `DistilleryError` where the work folder holds this component of another recipe or seed.
    """
    final = work / component
    claim_work(component, recipe, work, seed=seed)
    if final.exists():
        return
    shop = Workshop(recipe, work, seed, device)
    with publish(final) as temporary:
        if component == "vae":
            _train_vae(shop, temporary)
        elif component == "clip":
            _train_clip(shop, temporary)
        elif component == "unet":
            _train_unet(shop, temporary)
        else:
            _train_controlnet(shop, component, temporary)


# The parts of the recipe that each component depends on.
_PARTS = {"vae": ("vae",), "clip": ("tokenizer", "clip"), "unet": ("tokenizer", "vae", "unet")}
_CONTROL_PARTS = ("tokenizer", "vae", "unet", "controlnet")


def claim_work(component: str, recipe: Mapping, work: Path, *, seed: int) -> None:
    """Note in the work folder what a component is made of, or compare with what is noted."""
    names = _PARTS.get(component, _CONTROL_PARTS)
    made_of = hash_json({"seed": seed, **{name: recipe[name] for name in names}})
    note = work / f"{component}.recipe"
    if note.exists() and note.read_text() != made_of:
        raise DistilleryError(
            f"{note}: {component} was begun with another recipe or seed: delete {work} or choose "
            "another work folder"
        )
    work.mkdir(parents=True, exist_ok=True)
    note.write_text(made_of)


def _train_vae(shop: Workshop, folder: Path) -> None:
    model, pca = shop.encoder
    vae.train_decoder(
        model.to(shop.device),
        pca,
        shop.recipe["vae"],
        folder=shop.state("vae"),
        seed=shop.seed,
    )
    model.to("cpu", memory_format=torch.contiguous_format).save_pretrained(folder)


def _train_clip(shop: Workshop, folder: Path) -> None:
    part = shop.recipe["clip"]
    model = clip.build_clip(part, shop.tokenizer, image_px=IMAGE_PX, seed=shop.seed)
    clip.train_clip(
        model.to(shop.device),
        shop.tokenizer,
        part,
        folder=shop.state("clip"),
        seed=shop.seed,
    )
    export.save_clip(
        folder,
        clip=model.cpu(),
        processor=clip.build_processor(IMAGE_PX),
        tokenizer=shop.tokenizer,
    )
    probe.record_probe(folder, part["num_probe_scenes"])


def build_generator(shop: Workshop) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Untrained U-Net and text encoder."""
    part = shop.recipe["unet"]
    torch.manual_seed(shop.seed)
    network = unet.build_unet(
        part,
        num_latents=shop.recipe["vae"]["num_latents"],
        sample_size=IMAGE_PX // 2 ** (vae.NUM_LEVELS - 1),
    )
    return network, unet.build_text_encoder(part, shop.tokenizer)


def _train_unet(shop: Workshop, folder: Path) -> None:
    part = shop.recipe["unet"]
    network, text_encoder = build_generator(shop)
    pool = unet.draw_latents(part["scenes_seed"], part["num_scenes"], shop.encode, shop.tokenizer)
    both = network.to(shop.device), text_encoder.to(shop.device)
    generator = unet.Generator(*both, shop.tokenizer)
    unet.train_unet(generator, pool, part, folder=shop.state("unet"), seed=shop.seed)
    export.save_half(network.cpu(), folder / "unet")
    text_encoder.cpu().save_pretrained(folder / "text_encoder")


def _train_controlnet(shop: Workshop, component: str, folder: Path) -> None:
    part = shop.recipe["controlnet"]
    generator = unet.Generator(*shop.load_unet(), shop.tokenizer)
    _ = shop.encoder  # seeds torch's generator, so it is made before what draws from that
    adapter = controlnet.build_controlnet(generator.unet, part, seed=shop.seed)
    controlnet.train_controlnet(
        component.removeprefix("controlnet_"),
        adapter.to(shop.device),
        generator,
        shop.encode,
        part,
        folder=shop.state(component),
        seed=shop.seed,
    )
    export.save_half(adapter.cpu(), folder)


def assemble(recipe: Mapping, out: Path, work: Path, *, seed: int) -> None:
    """Copy the components of `work` into one pipeline folder, published as a whole."""
    shop = Workshop(recipe, work, seed, "cpu")
    network, text_encoder = shop.load_unet()
    with publish(out.resolve()) as temporary:
        export.save_pipeline(
            temporary,
            vae=load_network(AutoencoderKL.from_pretrained, work / "vae"),
            unet=network,
            text_encoder=text_encoder,
            tokenizer=shop.tokenizer,
        )
        for component in ("clip", *_CONTROLNETS):
            shutil.copytree(work / component, temporary / component)
        export.drop_volatile_keys(temporary)
