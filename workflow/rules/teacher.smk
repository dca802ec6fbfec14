# The teacher, and its outputs on the curated data: what every student learns from.


rule prepare_teacher:
    input:
        scenes_teacher=files(PATHS.scenes_teacher),
        recipe=PARAMS.prepare_teacher.recipe,
        code=code("prepare_teacher"),
    output:
        teacher=directory(PATHS.teacher),
    log:
        f"{LOGS}/prepare_teacher.log",
    threads: THREADS
    resources:
        mem_mb=memory("prepare_teacher"),
        heavy=1,
        gpu=ON_GPU,
    params:
        file=params_file,
        values=values("prepare_teacher"),
    message:
        "prepare_teacher"
    shell:
        "PYTHONPATH=src python -m distillery.stages.prepare_teacher --params {params.file}"
        f" --scenes_teacher {PATHS.scenes_teacher} --teacher {{output.teacher}}"


rule cache_teacher_base:
    input:
        curated=rules.curate.output.curated,
        selection=rules.deduplicate.output.selection,
        teacher=rules.prepare_teacher.output.teacher,
        code=code("cache_teacher"),
    output:
        cache=directory(f"{PATHS.teacher_cache}/base/{{part}}"),
    log:
        f"{LOGS}/cache_teacher/base/{{part}}.log",
    priority: 1  # other families wait for it
    threads: THREADS
    resources:
        mem_mb=memory("cache_teacher"),
        heavy=1,
        gpu=ON_GPU,
    params:
        file=params_file,
        values=values("cache_teacher"),
    message:
        "cache_teacher base {wildcards.part}"
    shell:
        "PYTHONPATH=src python -m distillery.stages.cache_teacher --params {params.file}"
        " --view base --part {wildcards.part} --curated {input.curated}"
        " --selection {input.selection} --teacher {input.teacher} --cache {output.cache}"


rule cache_teacher:
    input:
        curated=rules.curate.output.curated,
        selection=rules.deduplicate.output.selection,
        teacher=rules.prepare_teacher.output.teacher,
        base=rules.cache_teacher_base.output.cache,
        code=code("cache_teacher"),
    output:
        cache=directory(f"{PATHS.teacher_cache}/{{view}}/{{part}}"),
    log:
        f"{LOGS}/cache_teacher/{{view}}/{{part}}.log",
    priority: 1  # other families wait for it
    threads: THREADS
    resources:
        mem_mb=memory("cache_teacher"),
        heavy=1,
        gpu=ON_GPU,
    params:
        file=params_file,
        values=values("cache_teacher"),
        view=lambda wildcards: wildcards.view,
        maps="",
    message:
        "cache_teacher {wildcards.view} {wildcards.part}"
    shell:
        "PYTHONPATH=src python -m distillery.stages.cache_teacher --params {params.file}"
        " --view {params.view} --part {wildcards.part} --curated {input.curated}"
        " --selection {input.selection} --teacher {input.teacher} --base {input.base}"
        "{params.maps} --cache {output.cache}"


use rule cache_teacher as cache_teacher_control with:
    input:
        curated=rules.curate.output.curated,
        selection=rules.deduplicate.output.selection,
        teacher=rules.prepare_teacher.output.teacher,
        base=rules.cache_teacher_base.output.cache,
        conditions=rules.extract_conditions.output.conditions,
        code=code("cache_teacher"),
    output:
        cache=directory(f"{PATHS.teacher_cache}/control_{{kind}}/{{part}}"),
    log:
        f"{LOGS}/cache_teacher/control_{{kind}}/{{part}}.log",
    params:
        file=params_file,
        values=values("cache_teacher"),
        view=lambda wildcards: f"control_{wildcards.kind}",
        maps=lambda wildcards, input: f" --conditions {input.conditions}",
    message:
        "cache_teacher control_{wildcards.kind} {wildcards.part}"


CONDITIONS = expand(rules.extract_conditions.output.conditions, part=PARTS)
CURATED = expand(rules.curate.output.curated, part=PARTS)
