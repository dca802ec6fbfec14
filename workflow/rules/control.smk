# Stage II of ELR-Diffusion: a control adapter on a frozen U-Net, dense or low-rank.


rule finetune_control:
    input:
        teacher=rules.prepare_teacher.output.teacher,
        backbone=backbone("finetune_control"),
        base=cached("base"),
        conditions=CONDITIONS,
        code=code("finetune_control"),
    output:
        model=directory(f"{PATHS.models}/control/{{variant}}"),
    log:
        f"{LOGS}/finetune_control/{{variant}}.log",
    wildcard_constraints:
        variant=either(variants("finetune_control")),
    resources:
        heavy=1,
        gpu=ON_GPU,
    params:
        file=params_file,
        values=values("finetune_control"),
    message:
        "finetune_control {wildcards.variant}"
    shell:
        "PYTHONPATH=src python -m distillery.stages.finetune_control --params {params.file}"
        " --variant {wildcards.variant} --teacher {input.teacher} --backbone {input.backbone}"
        f" --base {PATHS.teacher_cache}/base --conditions {PATHS.conditions}"
        " --model {output.model}"


use rule generate_teacher as generate_control with:
    input:
        teacher=rules.prepare_teacher.output.teacher,
        model=rules.finetune_control.output.model,
        backbone=backbone("finetune_control"),
        conditions=CONDITIONS,
        curated=CURATED,
        selection=rules.deduplicate.output.selection,
        code=code("generate"),
    output:
        samples=directory(f"{PATHS.samples}/control/{{variant}}"),
    log:
        f"{LOGS}/generate/control/{{variant}}.log",
    wildcard_constraints:
        variant=either(variants("finetune_control")),
    params:
        file=params_file,
        values=values("generate"),
        variant=lambda wildcards: f"control/{wildcards.variant}",
        options=lambda wildcards, input: f" --backbone {input.backbone}{TO_CONTROL}",


use rule evaluate_teacher as evaluate_control with:
    input:
        samples=rules.generate_control.output.samples,
        reference=expand(rules.generate_teacher.output.samples, variant="guided"),
        backbone=backbone("finetune_control"),
        conditions=CONDITIONS,
        curated=CURATED,
        selection=rules.deduplicate.output.selection,
        teacher=rules.prepare_teacher.output.teacher,
        model=rules.finetune_control.output.model,
        code=code("evaluate"),
    output:
        metrics=report(
            f"{PATHS.metrics}/control/{{variant}}.json",
            caption="../report/metrics.rst",
            category="Metrics",
            labels={"model": "control/{variant}"},
        ),
    log:
        f"{LOGS}/evaluate/control/{{variant}}.log",
    wildcard_constraints:
        variant=either(variants("finetune_control")),
    params:
        file=params_file,
        values=values("evaluate"),
        variant=lambda wildcards: f"control/{wildcards.variant}",
        options=lambda wildcards, input: f" --backbone {input.backbone}{TO_CONTROL}",
