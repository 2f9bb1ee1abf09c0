"""What a lying agent, a hostile broker and a foreign publisher can do to a signed fleet."""
