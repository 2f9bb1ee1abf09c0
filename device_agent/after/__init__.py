"""What is done after an upload is proven: its file is deleted, or moved into another folder; its receipt is signed.

Rule: the only code of the agent that renames or deletes a file of the user.
"""
