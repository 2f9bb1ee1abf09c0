"""Support for a process under libfaketime; `clock_of` puts this folder on its path."""
