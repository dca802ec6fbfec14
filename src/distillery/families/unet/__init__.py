"""Stage I of ELR-Diffusion: a low-rank U-Net."""
