"""Real processes from the operator's command to the bytes in the bucket."""
