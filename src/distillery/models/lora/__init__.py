"""LoRA on a U-Net, its files, and the embedding of a guidance scale."""
