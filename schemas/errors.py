"""What can be wrong with bytes that should be a message.

ValueError
└── SchemaError        bytes, a name or a number that the protocol does not allow
    └── BadCommand     a command that cannot be executed, but can be answered
"""


class SchemaError(ValueError):
    """Not a message, name or number of this protocol; the text names the fault and what is allowed."""


class BadCommand(SchemaError):
    """A command with a readable `message_id`; `code` is the error code of the answer.

    `code` is a member of `schemas.values.ErrorCode` (typed as `str`, since values imports this module).
    """

    def __init__(self, text: str, message_id: str, action: str, code: str) -> None:
        super().__init__(text)
        self.message_id = message_id
        self.action = action
        self.code = code
