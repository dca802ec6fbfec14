# Images and metrics of the teacher and of every student; cost of every model.

CURATED = expand(rules.curate.output.curated, part=PARTS)


rule generate_teacher:
    input:
        teacher=rules.prepare_teacher.output.teacher,
        curated=CURATED,
        selection=rules.deduplicate.output.selection,
        code=code("generate"),
    output:
        samples=directory(f"{PATHS.samples}/teacher/{{variant}}"),
    log:
        f"{LOGS}/generate/teacher/{{variant}}.log",
    resources:
        heavy=1,
        gpu=ON_GPU,
    params:
        file=params_file,
        values=values("generate"),
    message:
        "generate teacher/{wildcards.variant}"
    shell:
        "PYTHONPATH=src python -m distillery.stages.generate --params {params.file}"
        " --variant teacher/{wildcards.variant} --teacher {input.teacher} --model {input.teacher}"
        f" --curated {PATHS.curated} --selection {{input.selection}}"
        " --samples {output.samples}"


rule generate_unet:
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
    resources:
        heavy=1,
        gpu=ON_GPU,
    params:
        file=params_file,
        values=values("generate"),
    message:
        "generate unet/{wildcards.variant}"
    shell:
        "PYTHONPATH=src python -m distillery.stages.generate --params {params.file}"
        " --variant unet/{wildcards.variant} --teacher {input.teacher} --model {input.model}"
        f" --curated {PATHS.curated} --selection {{input.selection}}"
        " --samples {output.samples}"


REFERENCE = expand(rules.generate_teacher.output.samples, variant="guided")


rule evaluate_teacher:
    input:
        samples=rules.generate_teacher.output.samples,
        reference=REFERENCE,
        curated=CURATED,
        selection=rules.deduplicate.output.selection,
        teacher=rules.prepare_teacher.output.teacher,
        code=code("evaluate"),
    output:
        metrics=report(
            f"{PATHS.metrics}/teacher/{{variant}}.json",
            caption="../report/metrics.rst",
            category="Metrics",
            labels={"model": "teacher/{variant}"},
        ),
    log:
        f"{LOGS}/evaluate/teacher/{{variant}}.log",
    resources:
        heavy=1,
        gpu=ON_GPU,
    params:
        file=params_file,
        values=values("evaluate"),
    message:
        "evaluate teacher/{wildcards.variant}"
    shell:
        "PYTHONPATH=src python -m distillery.stages.evaluate --params {params.file}"
        " --variant teacher/{wildcards.variant} --samples {input.samples}"
        f" --reference {{input.reference}} --curated {PATHS.curated}"
        " --selection {input.selection} --teacher {input.teacher} --model {input.teacher}"
        " --metrics {output.metrics}"


rule evaluate_unet:
    input:
        samples=rules.generate_unet.output.samples,
        reference=REFERENCE,
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
    resources:
        heavy=1,
        gpu=ON_GPU,
    params:
        file=params_file,
        values=values("evaluate"),
    message:
        "evaluate unet/{wildcards.variant}"
    shell:
        "PYTHONPATH=src python -m distillery.stages.evaluate --params {params.file}"
        " --variant unet/{wildcards.variant} --samples {input.samples}"
        f" --reference {{input.reference}} --curated {PATHS.curated}"
        " --selection {input.selection} --teacher {input.teacher} --model {input.model}"
        " --metrics {output.metrics}"


rule profile:
    input:
        teacher=rules.prepare_teacher.output.teacher,
        models=[
            rules.init_student.output.init,
            *expand(rules.distill_unet.output.model, variant=UNET_VARIANTS),
        ],
        code=code("profile"),
    output:
        metrics=report(
            f"{PATHS.metrics}/profile.json",
            caption="../report/profile.rst",
            category="Metrics",
            labels={"model": "cost of all"},
        ),
    log:
        f"{LOGS}/profile.log",
    resources:
        heavy=2,  # times are measured: no other heavy job beside it
        gpu=ON_GPU,
    params:
        file=params_file,
        values=values("profile"),
    message:
        "profile"
    shell:
        "PYTHONPATH=src python -m distillery.stages.profile --params {params.file}"
        f" --teacher {{input.teacher}} --models {PATHS.models} --metrics {{output.metrics}}"
