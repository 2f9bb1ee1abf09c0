"""The commands of `backhaul keys`."""
