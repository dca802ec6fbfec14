# What every model costs.

DECOMPOSITIONS = [
    *expand(rules.init_student.output.init, method=[*INIT.methods, *INIT.plans]),
    rules.init_student_random.output.init,
]
MODELS = [
    f"{PATHS.models}/{name}/{variant}"
    for name, family in TRAINED.items()
    for variant in variants_of(family)
]


rule profile:
    input:
        teacher=rules.prepare_teacher.output.teacher,
        init=DECOMPOSITIONS,
        models=MODELS,
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
    threads: THREADS
    resources:
        mem_mb=memory("profile"),
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
