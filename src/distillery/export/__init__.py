"""Students in the forms of other tools: one file, a LoRA of kohya's, a hub folder, ComfyUI."""
