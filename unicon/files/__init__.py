"""Model folders, hub repositories, adapters and LoRA files: found and checked by names and headers, without torch."""
