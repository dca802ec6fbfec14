# The families of students: of each a training, the images that its models draw, their metrics.
# A new family is a line of FAMILIES; the inputs of its training are those of its stage.
from collections import namedtuple

CONDITION = PARAMS.distill_controlnet.condition
CONTROLLED = f"{PATHS.samples}/teacher/control_{CONDITION}"
GUIDED = f"{PATHS.samples}/teacher/guided"

# `draws_with` and `judged_with` are what `generate` and `evaluate` need besides the model.
Family = namedtuple("Family", "name training draws_with judged_with reference")
FAMILIES = [
    Family("unet", "distill_unet", [], [], GUIDED),
    Family(
        "control",
        "finetune_control",
        ["backbone", "conditions"],
        ["backbone", "conditions"],
        GUIDED,
    ),
    Family(
        "controlnet",
        "distill_controlnet",
        ["conditions"],
        ["offset_reference", "conditions"],
        CONTROLLED,
    ),
    Family("guidance", "distill_guidance", ["backbone"], ["backbone"], GUIDED),
    # The whole student: a low-rank U-Net, distilled guidance and a distilled ControlNet.
    Family(
        "whole",
        None,
        ["backbone", "controlnet", "conditions"],
        ["backbone", "controlnet", "conditions"],
        CONTROLLED,
    ),
]

# Inputs that stages take as the folder of all parts.
FOLDERS = {
    **{view: f"{PATHS.teacher_cache}/{view}" for view in ("base", "cond", "uncond")},
    "control": f"{PATHS.teacher_cache}/control_{CONDITION}",
    "conditions": PATHS.conditions,
}


def source(family, name):
    """The files behind an input of a family's rules, by the name of the stage's argument."""
    if name == "conditions":
        return CONDITIONS
    if name in FOLDERS:
        return expand(f"{FOLDERS[name]}/{{part}}", part=PARTS)
    if name == "init":
        return lambda wildcards: decomposition(wildcards.variant)
    if name == "controlnet" or name == "backbone" and not family.training:
        return part(name, "controlnet/" if name == "controlnet" else "")
    return {
        "teacher": PATHS.teacher,
        "offset_reference": f"{family.reference}_offset",
        "backbone": backbone(family.training),
    }[name]


def sources(family, names):
    """Inputs of a rule: {name: files}."""
    return {name: source(family, name) for name in names}


def options(names):
    """Those inputs on the command line."""
    return "".join(
        f" --{name} {FOLDERS.get(name, f'{{input.{name}}}')}" for name in names
    )


def model_of(family):
    """The model of a variant, as an input."""
    if family.training:
        return f"{PATHS.models}/{family.name}/{{variant}}"
    return part("guidance", "guidance/")


def variants_of(family):
    """The variants of a family, in the order of params.yaml."""
    return variants(family.training) if family.training else list(WHOLE)


def variant_of(family):
    """What `generate` and `evaluate` call a variant."""
    return lambda wildcards: f"{family.name}/{wildcards.variant}"


for family in FAMILIES:

    if family.training:
        needed = stage_inputs(family.training)

        rule:
            name:
                family.training
            input:
                **sources(family, needed),
                code=code(family.training),
            output:
                model=directory(f"{PATHS.models}/{family.name}/{{variant}}"),
            log:
                f"{LOGS}/{family.training}/{{variant}}.log",
            wildcard_constraints:
                variant=either(variants_of(family)),
            priority: int(family.name == "unet")  # other families wait for it
            resources:
                heavy=1,
                gpu=ON_GPU,
            params:
                file=params_file,
                values=values(family.training),
            message:
                f"{family.training} {{wildcards.variant}}"
            shell:
                f"PYTHONPATH=src python -m distillery.stages.{family.training}"
                " --params {params.file} --variant {wildcards.variant}"
                f"{options(needed)} --model {{output.model}}"

    rule:
        name:
            f"generate_{family.name}"
        input:
            **sources(family, family.draws_with),
            teacher=PATHS.teacher,
            model=model_of(family),
            curated=CURATED,
            selection=PATHS.selection,
            code=code("generate"),
        output:
            samples=directory(f"{PATHS.samples}/{family.name}/{{variant}}"),
        log:
            f"{LOGS}/generate/{family.name}/{{variant}}.log",
        wildcard_constraints:
            variant=either(variants_of(family)),
        resources:
            heavy=1,
            gpu=ON_GPU,
        params:
            file=params_file,
            values=values("generate"),
            variant=variant_of(family),
        message:
            "generate {params.variant}"
        shell:
            "PYTHONPATH=src python -m distillery.stages.generate --params {params.file}"
            " --variant {params.variant} --teacher {input.teacher} --model {input.model}"
            f"{options(family.draws_with)} --curated {PATHS.curated}"
            " --selection {input.selection} --samples {output.samples}"

    rule:
        name:
            f"evaluate_{family.name}"
        input:
            **sources(family, family.judged_with),
            samples=f"{PATHS.samples}/{family.name}/{{variant}}",
            reference=family.reference,
            curated=CURATED,
            selection=PATHS.selection,
            teacher=PATHS.teacher,
            model=model_of(family),
            code=code("evaluate"),
        output:
            metrics=report(
                f"{PATHS.metrics}/{family.name}/{{variant}}.json",
                caption="../report/metrics.rst",
                category="Metrics",
                labels={"model": f"{family.name}/{{variant}}"},
            ),
        log:
            f"{LOGS}/evaluate/{family.name}/{{variant}}.log",
        wildcard_constraints:
            variant=either(variants_of(family)),
        resources:
            heavy=1,
            gpu=ON_GPU,
        params:
            file=params_file,
            values=values("evaluate"),
            variant=variant_of(family),
        message:
            "evaluate {params.variant}"
        shell:
            "PYTHONPATH=src python -m distillery.stages.evaluate --params {params.file}"
            " --variant {params.variant} --samples {input.samples} --reference {input.reference}"
            f"{options(family.judged_with)} --curated {PATHS.curated}"
            " --selection {input.selection} --teacher {input.teacher} --model {input.model}"
            " --metrics {output.metrics}"
