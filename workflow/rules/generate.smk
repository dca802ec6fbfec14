# Images and metrics of the teacher; the families' rules are made after these.

TO_CONTROL = f" --conditions {PATHS.conditions}"
WITHOUT_MAPS = "guided|unguided|guided_offset"


rule generate_teacher:
    input:
        teacher=rules.prepare_teacher.output.teacher,
        model=rules.prepare_teacher.output.teacher,
        curated=CURATED,
        selection=rules.deduplicate.output.selection,
        code=code("generate"),
    output:
        samples=directory(f"{PATHS.samples}/teacher/{{variant}}"),
    log:
        f"{LOGS}/generate/teacher/{{variant}}.log",
    wildcard_constraints:
        variant=WITHOUT_MAPS,
    threads: THREADS
    resources:
        mem_mb=memory("generate"),
        heavy=1,
        gpu=ON_GPU,
    params:
        file=params_file,
        values=values("generate"),
        variant=lambda wildcards: f"teacher/{wildcards.variant}",
        options="",
    message:
        "generate {params.variant}"
    shell:
        "PYTHONPATH=src python -m distillery.stages.generate --params {params.file}"
        " --variant {params.variant} --teacher {input.teacher} --model {input.model}"
        f"{{params.options}} --curated {PATHS.curated} --selection {{input.selection}}"
        " --samples {output.samples}"


rule evaluate_teacher:
    input:
        samples=rules.generate_teacher.output.samples,
        reference=expand(rules.generate_teacher.output.samples, variant="guided"),
        conditions=CONDITIONS,
        curated=CURATED,
        selection=rules.deduplicate.output.selection,
        teacher=rules.prepare_teacher.output.teacher,
        model=rules.prepare_teacher.output.teacher,
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
    wildcard_constraints:
        variant=WITHOUT_MAPS,
    threads: THREADS
    resources:
        mem_mb=memory("evaluate"),
        heavy=1,
        gpu=ON_GPU,
    params:
        file=params_file,
        values=values("evaluate"),
        variant=lambda wildcards: f"teacher/{wildcards.variant}",
        options=TO_CONTROL,  # no map was given: what control is compared with
    message:
        "evaluate {params.variant}"
    shell:
        "PYTHONPATH=src python -m distillery.stages.evaluate --params {params.file}"
        " --variant {params.variant} --samples {input.samples} --reference {input.reference}"
        f"{{params.options}} --curated {PATHS.curated} --selection {{input.selection}}"
        " --teacher {input.teacher} --model {input.model} --metrics {output.metrics}"


use rule generate_teacher as generate_teacher_control with:
    input:
        teacher=rules.prepare_teacher.output.teacher,
        model=rules.prepare_teacher.output.teacher,
        conditions=CONDITIONS,
        curated=CURATED,
        selection=rules.deduplicate.output.selection,
        code=code("generate"),
    output:
        samples=directory(f"{PATHS.samples}/teacher/control_{{kind}}{{offset}}"),
    log:
        f"{LOGS}/generate/teacher/control_{{kind}}{{offset}}.log",
    wildcard_constraints:
        offset="|_offset",
    params:
        file=params_file,
        values=values("generate"),
        variant=lambda wildcards: f"teacher/control_{wildcards.kind}{wildcards.offset}",
        options=TO_CONTROL,


use rule evaluate_teacher as evaluate_teacher_control with:
    input:
        samples=rules.generate_teacher_control.output.samples,
        reference=f"{PATHS.samples}/teacher/control_{{kind}}",
        offset_reference=f"{PATHS.samples}/teacher/control_{{kind}}_offset",
        conditions=CONDITIONS,
        curated=CURATED,
        selection=rules.deduplicate.output.selection,
        teacher=rules.prepare_teacher.output.teacher,
        model=rules.prepare_teacher.output.teacher,
        code=code("evaluate"),
    output:
        metrics=report(
            f"{PATHS.metrics}/teacher/control_{{kind}}{{offset}}.json",
            caption="../report/metrics.rst",
            category="Metrics",
            labels={"model": "teacher/control_{kind}{offset}"},
        ),
    log:
        f"{LOGS}/evaluate/teacher/control_{{kind}}{{offset}}.log",
    wildcard_constraints:
        offset="|_offset",
    params:
        file=params_file,
        values=values("evaluate"),
        variant=lambda wildcards: f"teacher/control_{wildcards.kind}{wildcards.offset}",
        options=lambda wildcards, input: (
            f" --offset_reference {input.offset_reference}{TO_CONTROL}"
        ),
