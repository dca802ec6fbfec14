# From a source of captioned images to curated, deduplicated parts with condition maps.


rule ingest:
    input:
        code=code("ingest"),
    output:
        raw=directory(PATHS.raw),
    log:
        f"{LOGS}/ingest.log",
    threads: THREADS
    resources:
        mem_mb=memory("ingest"),
    params:
        file=params_file,
        values=values("ingest"),
    message:
        "ingest"
    shell:
        "PYTHONPATH=src python -m distillery.stages.ingest --params {params.file}"
        " --raw {output.raw}"


rule curate:
    input:
        raw=rules.ingest.output.raw,
        code=code("curate"),
    output:
        curated=directory(f"{PATHS.curated}/{{part}}"),
    log:
        f"{LOGS}/curate/{{part}}.log",
    threads: THREADS
    resources:
        mem_mb=memory("curate"),
    params:
        file=params_file,
        values=values("curate"),
    message:
        "curate {wildcards.part}"
    shell:
        "PYTHONPATH=src python -m distillery.stages.curate --params {params.file}"
        " --part {wildcards.part} --raw {input.raw} --curated {output.curated}"


rule deduplicate:
    input:
        curated=expand(rules.curate.output.curated, part=PARTS),
        code=code("deduplicate"),
    output:
        selection=report(
            directory(PATHS.selection),
            patterns=["{name}.json"],
            caption="../report/funnel.rst",
            category="Data",
        ),
    log:
        f"{LOGS}/deduplicate.log",
    threads: THREADS
    resources:
        mem_mb=memory("deduplicate"),
        gpu=ON_GPU if PARAMS.deduplicate.embedding else 0,
    params:
        file=params_file,
        values=values("deduplicate"),
    message:
        "deduplicate"
    shell:
        "PYTHONPATH=src python -m distillery.stages.deduplicate --params {params.file}"
        f" --curated {PATHS.curated} --selection {{output.selection}}"


rule extract_conditions:
    input:
        curated=rules.curate.output.curated,
        selection=rules.deduplicate.output.selection,
        code=code("extract_conditions"),
    output:
        conditions=directory(f"{PATHS.conditions}/{{part}}"),
    log:
        f"{LOGS}/extract_conditions/{{part}}.log",
    threads: THREADS
    resources:
        mem_mb=memory("extract_conditions"),
    params:
        file=params_file,
        values=values("extract_conditions"),
    message:
        "extract_conditions {wildcards.part}"
    shell:
        "PYTHONPATH=src python -m distillery.stages.extract_conditions --params {params.file}"
        " --part {wildcards.part} --curated {input.curated} --selection {input.selection}"
        " --conditions {output.conditions}"
