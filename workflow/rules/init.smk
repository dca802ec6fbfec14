# The decompositions of the teacher's U-Net that low-rank students start from.

INIT = PARAMS.init_student
INIT_INPUTS = {
    "teacher": rules.prepare_teacher.output.teacher,
    "base": cached("base"),
    "tables": files(INIT.tables),
    "plan": [INIT.rank.file] if INIT.rank.file else [],
    "code": code("init_student"),
}
INIT_OPTIONS = f" --base {PATHS.teacher_cache}/base --tables {INIT.tables}"


rule init_student:
    input:
        **INIT_INPUTS,
    output:
        init=directory(f"{PATHS.init}/{{method}}"),
    log:
        f"{LOGS}/init_student/{{method}}.log",
    wildcard_constraints:
        method=either(INIT.methods),
    priority: 1  # other families wait for it
    threads: THREADS
    resources:
        mem_mb=memory("init_student"),
        heavy=1,
        gpu=ON_GPU,
    params:
        file=params_file,
        values=values("init_student"),
        method=lambda wildcards: wildcards.method,
        options=INIT_OPTIONS,
    message:
        "init_student {params.method}"
    shell:
        "PYTHONPATH=src python -m distillery.stages.init_student --params {params.file}"
        " --method {params.method} --teacher {input.teacher}{params.options} --init {output.init}"


# Random students take their ranks from it.
use rule init_student as init_student_random with:
    output:
        init=directory(f"{PATHS.init}/random"),
    log:
        f"{LOGS}/init_student/random.log",
    params:
        file=params_file,
        values=values("init_student", method="random"),
        method="random",
        options=INIT_OPTIONS,


# Within a latency, by name.
use rule init_student as init_student_plan with:
    output:
        init=directory(f"{PATHS.init}/{{method}}"),
    wildcard_constraints:
        method=either(INIT.plans) or "none",
