"""`backhaul receipt` and `backhaul verify`."""
