"""What REST answers, as rows and members.

Rule: no behaviour.
"""
