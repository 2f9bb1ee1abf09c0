"""One module at a time: no socket, no sleep, no mock; mirrors the source tree."""
