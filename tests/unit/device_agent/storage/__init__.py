"""PUTs to presigned URLs."""
