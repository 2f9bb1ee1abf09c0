"""What is done with a file after its upload is proven: deleted, or moved into another folder.

Rule: the only code of the agent that renames or deletes a file of the user.
"""
