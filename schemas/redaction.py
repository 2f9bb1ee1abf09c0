"""What may not be in a log line, of either side: credentials, and what signs a URL.

Rule: a secret is found by the name of its parameter, wherever the name stands: in a URL, in a canonical request, in a
header, in a printed map. The shape of the text around it does not matter.
"""

import re
from typing import Final

REDACTED: Final = "[redacted]"

SECRET_NAME: Final = re.compile(r"password|secret|token|authorization|credential|signature", re.IGNORECASE)
"""A name that contains one of these names a secret."""

# Each pattern starts only where a name or a scheme begins, and never goes back in it: others choose the text, which
# would otherwise cost the square of its length.
_NAME: Final = r"(?=[\w-]*?(?:password|secret|token|credential|signature))[\w-]++"
_SCHEME: Final = r"(?<![a-z0-9+.-])[a-z0-9+.-]++://"
_URL: Final = re.compile(rf"({_SCHEME}[^\s?\"'<>]*+)(\?[^\s\"'<>]+)?", re.IGNORECASE)
_USER_INFO: Final = re.compile(rf"({_SCHEME})[^\s/@\"'<>]++@", re.IGNORECASE)
_BEARER: Final = re.compile(r"(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_HEADER: Final = re.compile(r"(\bauthorization[\"']?\s*[:=]\s*(?:b?[\"'])?)[^\"'\r\n]+", re.IGNORECASE)
_ASSIGNED: Final = re.compile(rf"((?<![\w-]){_NAME}\s*+(?:=|%3D)\s*(?:b?[\"'])?)[^\s&\"',;)\]}}]+", re.IGNORECASE)
_QUOTED: Final = re.compile(rf"([\"']{_NAME}[\"']\s*+:\s*+b?([\"']))(?:(?!\2).)*", re.IGNORECASE)
_FIELD: Final = re.compile(r"(\bx-amz-(?:signature|credential|security-token)\s*:\s*)[^\s\"',]+", re.IGNORECASE)
_MARKED: Final = (_BEARER, _HEADER, _ASSIGNED, _QUOTED, _FIELD)


def without_secrets(text: str) -> str:
    r"""The text with [redacted] in place of URLs' queries and user names, and of the values of secret parameters.

    >>> without_secrets("PUT https://store/key?X-Amz-Signature=abc failed")
    'PUT https://store/key?[redacted] failed'
    >>> without_secrets("GET\n/key\nX-Amz-Credential=AKIA%2F2025&X-Amz-Date=1&X-Amz-Signature=abc")
    'GET\n/key\nX-Amz-Credential=[redacted]&X-Amz-Date=1&X-Amz-Signature=[redacted]'
    """
    if "://" in text:
        text = _URL.sub(lambda url: url[1] + (f"?{REDACTED}" if url[2] else ""), text)
        text = _USER_INFO.sub(rf"\1{REDACTED}@", text)
    if SECRET_NAME.search(text) or _BEARER.search(text):
        for pattern in _MARKED:
            text = pattern.sub(rf"\1{REDACTED}", text)
    return text
