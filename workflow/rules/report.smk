# One page with everything: reports/index.html.


rule report:
    input:
        curated=CURATED,
        selection=rules.deduplicate.output.selection,
        init=rules.init_student.output.init,
        models=[
            rules.prepare_teacher.output.teacher,
            *expand(rules.distill_unet.output.model, variant=UNET_VARIANTS),
        ],
        samples=[
            *expand(rules.generate_teacher.output.samples, variant=TEACHER_VARIANTS),
            *expand(rules.generate_unet.output.samples, variant=UNET_VARIANTS),
        ],
        metrics=[
            *expand(rules.evaluate_teacher.output.metrics, variant=TEACHER_VARIANTS),
            *expand(rules.evaluate_unet.output.metrics, variant=UNET_VARIANTS),
            rules.profile.output.metrics,
        ],
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
    params:
        file=params_file,
        values=values("report"),
    message:
        "report"
    shell:
        "PYTHONPATH=src python -m distillery.stages.report --params {params.file}"
        f" --curated {PATHS.curated} --selection {{input.selection}} --init {{input.init}}"
        f" --models {PATHS.models} --samples {PATHS.samples} --metrics {PATHS.metrics}"
        f" --results {PATHS.results} --reports {{output.reports}}"
