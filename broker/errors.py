"""Errors of starting child processes and brokers, and of broker accounts.

Exception
├── NotListening           a child process did not come up; the module that started it adds what it is
└── BrokerError            base: catch this one to turn any of them into one clear line
    ├── BrokerMissing      neither mosquitto nor the embedded broker is installed: install one of them
    ├── BrokerNotStarted   the program ended or did not listen; carries the last lines of its log
    │   └── PortTaken      another process listens on the port: take another one
    └── AccessError        an account that cannot be made, found or removed
        ├── NoAccount      the account does not exist
        └── AlreadyEnrolled   the name has credentials; replacing them locks out their present user
"""


class NotListening(Exception):
    """A child process ended, or did not listen in time; the text ends with the last lines of its log."""

    def __init__(self, text: str, *, port_taken: bool) -> None:
        super().__init__(text)
        self.port_taken = port_taken


class BrokerError(Exception):
    """The broker cannot be started, reached or configured; the text names the remedy."""


class BrokerMissing(BrokerError):
    """No broker program is installed; the text names the ways to get one."""


class BrokerNotStarted(BrokerError):
    """The broker program ended, or did not listen in time; the text ends with the last lines of its log."""


class PortTaken(BrokerNotStarted):
    """Another process listens on the requested port."""


class AccessError(BrokerError):
    """An account that cannot be made, found or removed."""


class NoAccount(AccessError):
    """The account does not exist."""


class AlreadyEnrolled(AccessError):
    """The name has credentials already; replacing them must be requested explicitly."""
