"""Unit tests of `broker`: files and text, no process."""
