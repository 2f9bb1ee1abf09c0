"""How fast and how small Backhaul is: every figure beside a peer or a floor measured in the same run.

Rule: nothing here is part of the product or of its tests. What is measured, and what it means, stands in README.md.
"""
