"""The sections of params.yaml that concern models; see params_data for the form and the others."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distillery.params.data import Count, Frozen, Name, Positive, Share

Kind = Literal["canny", "sketch", "segmentation"]


class PrepareTeacher(Frozen):
    """Which teacher: `scenes` (shipped), a local diffusers folder, or a hub id."""

    source: str
    """scenes (shipped), a local diffusers folder or a hub id"""
    mirrors: list[str]
    """hub ids to try in turn when the first fails"""
    revision: str | None
    """commit or tag of the hub id"""
    controlnets: dict[Kind, str]
    """ControlNet by kind of map: a local folder or a hub id; replaces what the source has"""
    sha256: dict[str, str]
    """expected hash by file; others are not checked"""
    train: bool
    """train the scenes teacher anew"""
    recipe: str
    """how it is trained"""


class Generated(Frozen):
    """How the teacher draws what is learnt from; by DDIM, one sample a caption."""

    num_inference_steps: Positive
    """sampling steps"""
    guidance_scale: Annotated[float, Field(ge=0)]
    """classifier-free guidance; up to 1: none"""


class CacheTeacher(Frozen):
    """The teacher's cached outputs."""

    views: Annotated[list[Literal["cond", "uncond"]], Field(min_length=1)]
    """the outputs with and without caption; base is always there"""
    control_kinds: list[Kind]
    """kinds of maps for which the outputs under the teacher's ControlNet are cached too"""
    generated: Generated | None
    """null: latents of the images; else what the teacher draws from their captions"""
    num_slots: Positive
    """timesteps per image, one from each of so many strata"""
    shard_size_samples: Positive
    """records in a shard"""
    batch_size: Positive
    """images per teacher call"""
    dtype: Literal["float32", "float16"]
    """type of the stored outputs"""
    budget_bytes: Positive
    """refuse to start if the cache would be larger"""


class Rank(Frozen):
    """How ranks are chosen; `value` is the ratio, rank, energy or parameter target."""

    rule: Literal["ratio", "fixed", "energy", "target_total", "spectrum", "file"]
    """how a layer's rank is chosen; spectrum plans for a total of parameters from the weights"""
    value: Annotated[float, Field(gt=0)]
    """share of the full rank, rank, share of energy or parameters in total"""
    file: str | None
    """of rule file: what `distillery ranks --out` wrote"""
    keep_dense: list[str]
    """layers that are not decomposed"""

    @model_validator(mode="after")
    def _check(self) -> "Rank":
        if (self.rule == "file") != (self.file is not None):
            raise ValueError("file: belongs to rule file, and only there; set both or neither")
        return self


class InitStudent(Frozen):
    """Decomposition of the teacher."""

    methods: Annotated[list[Literal["svd", "data_aware", "planned"]], Field(min_length=1)]
    """decompositions to write; planned spreads as many parameters by what layers' outputs need"""
    rank: Rank
    num_moment_samples: Positive
    """cached samples that data_aware and planned measure activations on"""


class Weighting(Frozen):
    """Loss weight over timesteps (Salimans & Ho 2022, Hang et al. 2023)."""

    kind: Literal["constant", "truncated_snr", "min_snr", "snr_plus_one", "p2"]
    """function of the signal-to-noise ratio"""
    gamma: Annotated[float, Field(gt=0)]
    """its parameter, where it has one"""


class Training(Frozen):
    """What all training stages share."""

    batch_size: Positive
    """samples per step"""
    weight_decay: Annotated[float, Field(ge=0)]
    """of AdamW"""
    warmup_steps: Count
    """steps of linear warm-up"""
    max_grad_norm: Annotated[float, Field(gt=0)]
    """gradients are clipped to this norm"""
    ema_decay: Share
    """of the averaged weights; 0 keeps the last ones"""
    precision: Literal["no", "bf16", "fp16"]
    """mixed precision; no is float32"""
    gradient_checkpointing: bool
    """less memory, more time"""
    optimizer: Literal["adamw", "adamw8bit"]
    """adamw8bit needs bitsandbytes"""
    compile: bool
    """torch.compile"""
    checkpoint_every_steps: Positive
    """steps between resume points"""
    validate_every_steps: Positive
    """steps between validation losses"""
    num_val_samples: Positive
    """samples of the validation loss"""


class Kd(Frozen):
    """The distillation objective; `online` asks the teacher instead of its cache."""

    space: Literal["native", "eps", "v", "x0"]
    """prediction that is compared; native is the teacher's own"""
    weighting: Weighting
    lambda_diffusion: Annotated[float, Field(ge=0)]
    """weight of the plain denoising loss"""
    lambda_feature: Annotated[float, Field(ge=0)]
    """weight of the feature loss"""
    online: bool
    """ask the teacher instead of its cache"""

    @model_validator(mode="after")
    def _check(self) -> "Kd":
        if self.lambda_feature and not self.online:
            raise ValueError("lambda_feature needs the teacher's features: set online: true, or 0")
        return self


class UnetVariant(Frozen):
    """One Stage-I student; the paper's rows and the user's own alike."""

    architecture: Literal["dense", "low_rank"]
    """the teacher's own or the low-rank one"""
    init: Literal["random", "svd", "balanced", "data_aware", "planned"]
    """where the weights start"""
    objective: Literal["teacher", "noise"]
    """the teacher's outputs or the noise"""
    learning_rate: Annotated[float, Field(gt=0)]
    """after warm-up"""
    steps: Count
    """training steps; 0 evaluates the start"""

    @model_validator(mode="after")
    def _check(self) -> "UnetVariant":
        if self.architecture == "dense" and self.init != "random":
            raise ValueError(f"a dense student starts from random, not {self.init}")
        return self


class DistillUnet(Frozen):
    """Stage I of ELR-Diffusion."""

    training: Training
    kd: Kd
    variants: Annotated[dict[Name, UnetVariant], Field(min_length=1)]


class WholeStudent(Frozen):
    """Distilled parts that work together in one pipeline."""

    backbone: Annotated[str, Field(pattern=r"^unet/[a-z0-9][a-z0-9_]*$")]
    """low-rank U-Net: unet/ and a variant of distill_unet"""
    guidance: Name
    """variant of distill_guidance that was trained on it"""
    controlnet: Name
    """variant of distill_controlnet"""


class Generate(Frozen):
    """Sampling; the same prompts and noise for every model."""

    num_samples: Positive
    """images per model and seed"""
    num_inference_steps: Positive
    """denoising steps"""
    guidance_scale: Annotated[float, Field(ge=0)]
    """classifier-free guidance; 1 is none"""
    batch_size: Positive
    """images at once; results do not depend on it"""
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"], Field(description="of the U-Net, VAE and text")
    ]
    seed_offset: Annotated[int, Field(ge=1, description="added to seed for the offset samples")]
    whole: dict[Name, WholeStudent]
    """students made of several distilled parts"""


class Evaluate(Frozen):
    """Metrics and their settings."""

    num_samples: Positive
    """images per model and seed that are measured"""
    num_prediction_samples: Annotated[
        int, Field(ge=1, description="test records for the distance of predictions")
    ]
    feature_extractor: Annotated[
        str, Field(description="of FID and KID: teacher_clip, or a local folder of a vision model")
    ]
    clip_model: Annotated[
        str, Field(description="of the CLIP score: teacher_clip, or a local folder of a CLIP model")
    ]
    lpips: Annotated[
        str | None,
        Field(
            description="of LPIPS: teacher_clip, a folder of AlexNet, VGG-16 or a CLIP model, "
            "or null to leave it out"
        ),
    ]
    prompt_prefix: Annotated[str, Field(description="put before captions in the CLIP score")]
    num_bootstrap: Annotated[int, Field(ge=100, description="resamples of per-image metrics")]
    num_blocks: Annotated[int, Field(ge=2, description="image blocks of the FID and KID intervals")]


class Profile(Frozen):
    """Latency at the models' own size."""

    batch_size: Positive
    """images per timed evaluation"""
    num_repeats: Positive
    """timed rounds"""


class Report(Frozen):
    """The page."""

    title: str
    """heading of the page"""
    num_gallery_samples: Positive
    """prompts in the gallery"""
