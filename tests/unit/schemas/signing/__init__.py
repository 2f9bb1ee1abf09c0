"""Ed25519 keys and their files."""
