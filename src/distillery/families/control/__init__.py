"""Stage II of ELR-Diffusion: a control adapter on a frozen U-Net."""
