"""What every part stands on: artefacts, runs, shards, devices. Knows nothing of diffusion."""
