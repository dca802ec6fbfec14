# Stage I of ELR-Diffusion: decompose the teacher's U-Net, then distill its variants.

TEACHER_CACHE = [
    *expand(rules.cache_teacher_base.output.cache, part=PARTS),
    *expand(rules.cache_teacher.output.cache, view=VIEWS, part=PARTS),
]


rule init_student:
    input:
        teacher=rules.prepare_teacher.output.teacher,
        teacher_cache=TEACHER_CACHE,
        code=code("init_student"),
    output:
        init=directory(PATHS.init),
    log:
        f"{LOGS}/init_student.log",
    resources:
        heavy=1,
        gpu=ON_GPU,
    params:
        file=params_file,
        values=values("init_student"),
    message:
        "init_student"
    shell:
        "PYTHONPATH=src python -m distillery.stages.init_student --params {params.file}"
        " --teacher {input.teacher}"
        f" --teacher_cache {PATHS.teacher_cache} --init {{output.init}}"


rule distill_unet:
    input:
        teacher=rules.prepare_teacher.output.teacher,
        init=rules.init_student.output.init,
        teacher_cache=TEACHER_CACHE,
        code=code("distill_unet"),
    output:
        model=directory(f"{PATHS.models}/unet/{{variant}}"),
    log:
        f"{LOGS}/distill_unet/{{variant}}.log",
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
        f" --teacher_cache {PATHS.teacher_cache} --model {{output.model}}"
