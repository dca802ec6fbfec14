# Students of the guided teacher that need one evaluation a step.


rule distill_guidance:
    input:
        teacher=rules.prepare_teacher.output.teacher,
        backbone=backbone("distill_guidance"),
        base=cached("base"),
        cond=cached("cond"),
        uncond=cached("uncond"),
        code=code("distill_guidance"),
    output:
        model=directory(f"{PATHS.models}/guidance/{{variant}}"),
    log:
        f"{LOGS}/distill_guidance/{{variant}}.log",
    wildcard_constraints:
        variant=either(variants("distill_guidance")),
    resources:
        heavy=1,
        gpu=ON_GPU,
    params:
        file=params_file,
        values=values("distill_guidance"),
    message:
        "distill_guidance {wildcards.variant}"
    shell:
        "PYTHONPATH=src python -m distillery.stages.distill_guidance --params {params.file}"
        " --variant {wildcards.variant} --teacher {input.teacher} --backbone {input.backbone}"
        f" --base {PATHS.teacher_cache}/base --cond {PATHS.teacher_cache}/cond"
        f" --uncond {PATHS.teacher_cache}/uncond"
        " --model {output.model}"


use rule generate_teacher as generate_guidance with:
    input:
        teacher=rules.prepare_teacher.output.teacher,
        model=rules.distill_guidance.output.model,
        backbone=backbone("distill_guidance"),
        curated=CURATED,
        selection=rules.deduplicate.output.selection,
        code=code("generate"),
    output:
        samples=directory(f"{PATHS.samples}/guidance/{{variant}}"),
    log:
        f"{LOGS}/generate/guidance/{{variant}}.log",
    wildcard_constraints:
        variant=either(variants("distill_guidance")),
    params:
        file=params_file,
        values=values("generate"),
        variant=lambda wildcards: f"guidance/{wildcards.variant}",
        options=lambda wildcards, input: f" --backbone {input.backbone}",


use rule evaluate_teacher as evaluate_guidance with:
    input:
        samples=rules.generate_guidance.output.samples,
        reference=expand(rules.generate_teacher.output.samples, variant="guided"),
        backbone=backbone("distill_guidance"),
        curated=CURATED,
        selection=rules.deduplicate.output.selection,
        teacher=rules.prepare_teacher.output.teacher,
        model=rules.distill_guidance.output.model,
        code=code("evaluate"),
    output:
        metrics=report(
            f"{PATHS.metrics}/guidance/{{variant}}.json",
            caption="../report/metrics.rst",
            category="Metrics",
            labels={"model": "guidance/{variant}"},
        ),
    log:
        f"{LOGS}/evaluate/guidance/{{variant}}.log",
    wildcard_constraints:
        variant=either(variants("distill_guidance")),
    params:
        file=params_file,
        values=values("evaluate"),
        variant=lambda wildcards: f"guidance/{wildcards.variant}",
        options=lambda wildcards, input: f" --backbone {input.backbone}",
