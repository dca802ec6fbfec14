"""Student architectures and their start from a teacher; no params, no training."""
