# One page with everything: reports/index.html.

EVALUATED = [
    *(f"teacher/{name}" for name in TEACHER.variants(CONTROL_KINDS)),
    *(f"{name}/{v}" for name, family in STUDENTS.items() for v in variants_of(family)),
]


rule report:
    input:
        curated=CURATED,
        selection=rules.deduplicate.output.selection,
        init=DECOMPOSITIONS,
        models=[rules.prepare_teacher.output.teacher, *MODELS],
        samples=expand(f"{PATHS.samples}/{{name}}", name=EVALUATED),
        metrics=[
            *expand(f"{PATHS.metrics}/{{name}}.json", name=EVALUATED),
            rules.profile.output.metrics,
        ],
        conditions=CONDITIONS,
        results=files(PATHS.results),
        code=code("report"),
    output:
        reports=report(
            directory(PATHS.reports),
            htmlindex="index.html",
            caption="../report/report.rst",
            category="Report",
        ),
    log:
        f"{LOGS}/report.log",
    threads: THREADS
    resources:
        mem_mb=memory("report"),
    params:
        file=params_file,
        values=values("report"),
    message:
        "report"
    shell:
        "PYTHONPATH=src python -m distillery.stages.report --params {params.file}"
        f" --curated {PATHS.curated} --selection {{input.selection}} --init {PATHS.init}"
        f" --models {PATHS.models} --samples {PATHS.samples} --metrics {PATHS.metrics}"
        f" --results {PATHS.results} --conditions {PATHS.conditions}"
        " --reports {output.reports}"
