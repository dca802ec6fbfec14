# The whole student: low-rank U-Net, distilled guidance and distilled ControlNet in one pipeline.


use rule generate_teacher as generate_whole with:
    input:
        teacher=rules.prepare_teacher.output.teacher,
        model=part("guidance", "guidance/"),
        backbone=part("backbone", ""),
        controlnet=part("controlnet", "controlnet/"),
        conditions=CONDITIONS,
        curated=CURATED,
        selection=rules.deduplicate.output.selection,
        code=code("generate"),
    output:
        samples=directory(f"{PATHS.samples}/whole/{{variant}}"),
    log:
        f"{LOGS}/generate/whole/{{variant}}.log",
    wildcard_constraints:
        variant=either(WHOLE),
    params:
        file=params_file,
        values=values("generate"),
        variant=lambda wildcards: f"whole/{wildcards.variant}",
        options=lambda wildcards, input: (
            f" --backbone {input.backbone} --controlnet {input.controlnet}{TO_CONTROL}"
        ),


use rule evaluate_teacher as evaluate_whole with:
    input:
        samples=rules.generate_whole.output.samples,
        reference=CONTROLLED,
        backbone=part("backbone", ""),
        controlnet=part("controlnet", "controlnet/"),
        conditions=CONDITIONS,
        curated=CURATED,
        selection=rules.deduplicate.output.selection,
        teacher=rules.prepare_teacher.output.teacher,
        model=part("guidance", "guidance/"),
        code=code("evaluate"),
    output:
        metrics=report(
            f"{PATHS.metrics}/whole/{{variant}}.json",
            caption="../report/metrics.rst",
            category="Metrics",
            labels={"model": "whole/{variant}"},
        ),
    log:
        f"{LOGS}/evaluate/whole/{{variant}}.log",
    wildcard_constraints:
        variant=either(WHOLE),
    params:
        file=params_file,
        values=values("evaluate"),
        variant=lambda wildcards: f"whole/{wildcards.variant}",
        options=lambda wildcards, input: (
            f" --backbone {input.backbone} --controlnet {input.controlnet}{TO_CONTROL}"
        ),
