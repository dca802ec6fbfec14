# Smaller ControlNets that learn from the teacher's.

CONDITION = PARAMS.distill_controlnet.condition
CONTROLLED = f"{PATHS.samples}/teacher/control_{CONDITION}"


rule distill_controlnet:
    input:
        teacher=rules.prepare_teacher.output.teacher,
        base=cached("base"),
        control=cached(f"control_{CONDITION}"),
        conditions=CONDITIONS,
        code=code("distill_controlnet"),
    output:
        model=directory(f"{PATHS.models}/controlnet/{{variant}}"),
    log:
        f"{LOGS}/distill_controlnet/{{variant}}.log",
    wildcard_constraints:
        variant=either(variants("distill_controlnet")),
    resources:
        heavy=1,
        gpu=ON_GPU,
    params:
        file=params_file,
        values=values("distill_controlnet"),
    message:
        "distill_controlnet {wildcards.variant}"
    shell:
        "PYTHONPATH=src python -m distillery.stages.distill_controlnet --params {params.file}"
        " --variant {wildcards.variant} --teacher {input.teacher}"
        f" --base {PATHS.teacher_cache}/base --control {PATHS.teacher_cache}/control_{CONDITION}"
        f" --conditions {PATHS.conditions}"
        " --model {output.model}"


use rule generate_teacher as generate_controlnet with:
    input:
        teacher=rules.prepare_teacher.output.teacher,
        model=rules.distill_controlnet.output.model,
        conditions=CONDITIONS,
        curated=CURATED,
        selection=rules.deduplicate.output.selection,
        code=code("generate"),
    output:
        samples=directory(f"{PATHS.samples}/controlnet/{{variant}}"),
    log:
        f"{LOGS}/generate/controlnet/{{variant}}.log",
    wildcard_constraints:
        variant=either(variants("distill_controlnet")),
    params:
        file=params_file,
        values=values("generate"),
        variant=lambda wildcards: f"controlnet/{wildcards.variant}",
        options=TO_CONTROL,


use rule evaluate_teacher as evaluate_controlnet with:
    input:
        samples=rules.generate_controlnet.output.samples,
        reference=CONTROLLED,
        offset_reference=f"{CONTROLLED}_offset",
        conditions=CONDITIONS,
        curated=CURATED,
        selection=rules.deduplicate.output.selection,
        teacher=rules.prepare_teacher.output.teacher,
        model=rules.distill_controlnet.output.model,
        code=code("evaluate"),
    output:
        metrics=report(
            f"{PATHS.metrics}/controlnet/{{variant}}.json",
            caption="../report/metrics.rst",
            category="Metrics",
            labels={"model": "controlnet/{variant}"},
        ),
    log:
        f"{LOGS}/evaluate/controlnet/{{variant}}.log",
    wildcard_constraints:
        variant=either(variants("distill_controlnet")),
    params:
        file=params_file,
        values=values("evaluate"),
        variant=lambda wildcards: f"controlnet/{wildcards.variant}",
        options=lambda wildcards, input: (
            f" --offset_reference {input.offset_reference}{TO_CONTROL}"
        ),
