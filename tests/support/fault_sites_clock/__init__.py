"""What a process needs whose clock libfaketime moves; `clock_of` puts this folder on its path."""
