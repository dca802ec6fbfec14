# The families of students: of each a training, the images that its models draw, their metrics.
# They are those of `distillery.families`; the inputs of a training are those of its stage.

CONDITION = PARAMS.distill_controlnet.condition

# Inputs that stages take as the folder of all parts.
FOLDERS = {
    **{view: f"{PATHS.teacher_cache}/{view}" for view in ("base", "cond", "uncond")},
    "control": f"{PATHS.teacher_cache}/control_{CONDITION}",
    "conditions": PATHS.conditions,
}


def reference(family):
    """The teacher's images that a family's are compared with."""
    return f"{PATHS.samples}/teacher/{family.reference.format(condition=CONDITION)}"


def source(family, name):
    """The files behind an input of a family's rules, by the name of the stage's argument."""
    if name == "conditions":
        return CONDITIONS
    if name in FOLDERS:
        return expand(f"{FOLDERS[name]}/{{part}}", part=PARTS)
    if name == "init":
        return lambda wildcards: decomposition(wildcards.variant)
    if name == "teacher":
        return PATHS.teacher
    if name == "offset_reference":
        return f"{reference(family)}{OFFSET}"
    return part(family, name)


def part(family, name):
    """A model that a variant builds on, as an input, by the name of the stage's argument."""
    (wanted,) = (part for part in family.builds_on if part.option == name)
    known = variants_of(family)
    return lambda wildcards: model_folder(wanted.model(dict(known[wildcards.variant])))


def sources(family, names):
    """Inputs of a rule: {name: files}."""
    return {name: source(family, name) for name in names}


def options(names):
    """Those inputs on the command line.

    As a param of the rule: what stands in `shell` is evaluated when the job runs, after the loop.
    """
    return lambda wildcards, input: "".join(
        f" --{name} {FOLDERS.get(name) or input[name]}" for name in names
    )


def model_of(family):
    """The model of a variant, as an input."""
    if family.stage:
        return f"{PATHS.models}/{family.name}/{{variant}}"
    return part(family, "model")


def variants_of(family):
    """The variants of a family by name, in the order of params.yaml."""
    section = PARAMS
    for key in family.variants_key.split("."):
        section = getattr(section, key)
    return section


def variant_of(family):
    """What `generate` and `evaluate` call a variant."""
    return lambda wildcards: f"{family.name}/{wildcards.variant}"


for family in STUDENTS.values():

    if family.stage:
        needed = stage_inputs(family.stage)

        rule:
            name:
                family.stage
            input:
                **sources(family, needed),
                code=code(family.stage),
            output:
                model=directory(f"{PATHS.models}/{family.name}/{{variant}}"),
            log:
                f"{LOGS}/{family.stage}/{{variant}}.log",
            wildcard_constraints:
                variant=either(variants_of(family)),
            priority: int(family.name == "unet")  # other families wait for it
            threads: THREADS
            resources:
                mem_mb=memory(family.stage),
                heavy=1,
                gpu=ON_GPU,
            params:
                file=params_file,
                values=values(family.stage),
                stage=family.stage,
                options=options(needed),
            message:
                f"{family.stage} {{wildcards.variant}}"
            shell:
                "PYTHONPATH=src python -m distillery.stages.{params.stage}"
                " --params {params.file} --variant {wildcards.variant}"
                "{params.options} --model {output.model}"

    rule:
        name:
            f"generate_{family.name}"
        input:
            **sources(family, family.draws_with),
            teacher=PATHS.teacher,
            model=model_of(family),
            curated=CURATED,
            selection=PATHS.selection,
            code=code("generate"),
        output:
            samples=directory(f"{PATHS.samples}/{family.name}/{{variant}}"),
        log:
            f"{LOGS}/generate/{family.name}/{{variant}}.log",
        wildcard_constraints:
            variant=either(variants_of(family)),
        threads: THREADS
        resources:
            mem_mb=memory("generate"),
            heavy=1,
            gpu=ON_GPU,
        params:
            file=params_file,
            values=values("generate"),
            variant=variant_of(family),
            options=options(family.draws_with),
        message:
            "generate {params.variant}"
        shell:
            "PYTHONPATH=src python -m distillery.stages.generate --params {params.file}"
            " --variant {params.variant} --teacher {input.teacher} --model {input.model}"
            f"{{params.options}} --curated {PATHS.curated}"
            " --selection {input.selection} --samples {output.samples}"

    rule:
        name:
            f"evaluate_{family.name}"
        input:
            **sources(family, family.judged_with),
            samples=f"{PATHS.samples}/{family.name}/{{variant}}",
            reference=reference(family),
            curated=CURATED,
            selection=PATHS.selection,
            teacher=PATHS.teacher,
            model=model_of(family),
            code=code("evaluate"),
        output:
            metrics=report(
                f"{PATHS.metrics}/{family.name}/{{variant}}.json",
                caption="../report/metrics.rst",
                category="Metrics",
                labels={"model": f"{family.name}/{{variant}}"},
            ),
        log:
            f"{LOGS}/evaluate/{family.name}/{{variant}}.log",
        wildcard_constraints:
            variant=either(variants_of(family)),
        threads: THREADS
        resources:
            mem_mb=memory("evaluate"),
            heavy=1,
            gpu=ON_GPU,
        params:
            file=params_file,
            values=values("evaluate"),
            variant=variant_of(family),
            options=options(family.judged_with),
        message:
            "evaluate {params.variant}"
        shell:
            "PYTHONPATH=src python -m distillery.stages.evaluate --params {params.file}"
            " --variant {params.variant} --samples {input.samples} --reference {input.reference}"
            f"{{params.options}} --curated {PATHS.curated}"
            " --selection {input.selection} --teacher {input.teacher} --model {input.model}"
            " --metrics {output.metrics}"
