"""What scripts/on_gpu.sh measures, a module a part."""
