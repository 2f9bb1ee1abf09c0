"""PUTs of parts to presigned URLs.

Rule: only `uploader` imports http.
"""
