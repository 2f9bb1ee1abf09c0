"""Reading files safely."""
