"""Images from a model: sampler and the samples on disk."""
