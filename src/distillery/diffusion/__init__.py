"""What a training step computes: batches, noise plan, prediction types, weights, objectives."""
