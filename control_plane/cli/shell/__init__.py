"""What a shell needs beside the commands: completion, and help on topics.

Rule: nothing here changes anything.
"""
