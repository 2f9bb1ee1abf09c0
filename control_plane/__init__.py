"""The control plane: commands clients to upload files, grants URLs, completes and proves uploads."""
