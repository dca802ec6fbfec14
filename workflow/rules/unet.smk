# Stage I of ELR-Diffusion: decompose the teacher's U-Net, then distill its variants.


rule init_student:
    input:
        teacher=rules.prepare_teacher.output.teacher,
        base=cached("base"),
        code=code("init_student"),
    output:
        init=directory(f"{PATHS.init}/{{method}}"),
    log:
        f"{LOGS}/init_student/{{method}}.log",
    wildcard_constraints:
        method=either(PARAMS.init_student.methods),
    priority: 1  # other families wait for it
    resources:
        heavy=1,
        gpu=ON_GPU,
    params:
        file=params_file,
        values=values("init_student"),
        method=lambda wildcards: wildcards.method,
        options=f" --base {PATHS.teacher_cache}/base",
    message:
        "init_student {params.method}"
    shell:
        "PYTHONPATH=src python -m distillery.stages.init_student --params {params.file}"
        " --method {params.method} --teacher {input.teacher}{params.options} --init {output.init}"


# Random students take their ranks from it.
use rule init_student as init_student_random with:
    input:
        teacher=rules.prepare_teacher.output.teacher,
        code=code("init_student"),
    output:
        init=directory(f"{PATHS.init}/random"),
    log:
        f"{LOGS}/init_student/random.log",
    params:
        file=params_file,
        values=values("init_student"),
        method="random",
        options="",


rule distill_unet:
    input:
        teacher=rules.prepare_teacher.output.teacher,
        init=lambda wildcards: decomposition(wildcards.variant),
        base=cached("base"),
        cond=cached("cond"),
        code=code("distill_unet"),
    output:
        model=directory(f"{PATHS.models}/unet/{{variant}}"),
    log:
        f"{LOGS}/distill_unet/{{variant}}.log",
    wildcard_constraints:
        variant=either(variants("distill_unet")),
    priority: 1  # other families wait for it
    resources:
        heavy=1,
        gpu=ON_GPU,
    params:
        file=params_file,
        values=values("distill_unet"),
    message:
        "distill_unet {wildcards.variant}"
    shell:
        "PYTHONPATH=src python -m distillery.stages.distill_unet --params {params.file}"
        " --variant {wildcards.variant} --teacher {input.teacher} --init {input.init}"
        f" --base {PATHS.teacher_cache}/base --cond {PATHS.teacher_cache}/cond"
        " --model {output.model}"


use rule generate_teacher as generate_unet with:
    input:
        teacher=rules.prepare_teacher.output.teacher,
        model=rules.distill_unet.output.model,
        curated=CURATED,
        selection=rules.deduplicate.output.selection,
        code=code("generate"),
    output:
        samples=directory(f"{PATHS.samples}/unet/{{variant}}"),
    log:
        f"{LOGS}/generate/unet/{{variant}}.log",
    wildcard_constraints:
        variant=either(variants("distill_unet")),
    params:
        file=params_file,
        values=values("generate"),
        variant=lambda wildcards: f"unet/{wildcards.variant}",
        options="",


use rule evaluate_teacher as evaluate_unet with:
    input:
        samples=rules.generate_unet.output.samples,
        reference=expand(rules.generate_teacher.output.samples, variant="guided"),
        curated=CURATED,
        selection=rules.deduplicate.output.selection,
        teacher=rules.prepare_teacher.output.teacher,
        model=rules.distill_unet.output.model,
        code=code("evaluate"),
    output:
        metrics=report(
            f"{PATHS.metrics}/unet/{{variant}}.json",
            caption="../report/metrics.rst",
            category="Metrics",
            labels={"model": "unet/{variant}"},
        ),
    log:
        f"{LOGS}/evaluate/unet/{{variant}}.log",
    wildcard_constraints:
        variant=either(variants("distill_unet")),
    params:
        file=params_file,
        values=values("evaluate"),
        variant=lambda wildcards: f"unet/{wildcards.variant}",
        options="",
