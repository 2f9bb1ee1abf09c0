"""The findings about the broker: the connection, the account's rights, its limits, what it has stored.

Rule: a repair removes retained commands and changes nothing else: no device carries one out.
"""

from typing import Final

from control_plane.services.diagnosis.findings import Finding
from control_plane.services.ports.diagnosis import BrokerExaminer, BrokerFacts
from schemas.codec import MAX_MESSAGE_SIZE
from schemas.environment import is_loopback

CHECK_BROKER: Final = "check MQTT_URL, MQTT_USERNAME and MQTT_PASSWORD, and that the broker runs"
_RIGHTS: Final = "broker rights"
_RETAINED: Final = "retained commands"
_SHOWN: Final = 3
_FEW: Final = 10
"""Messages in flight: a fleet waits for its turn with fewer."""


class BrokerDoctor:
    """Checks one broker, over its own connections."""

    def __init__(self, examiner: BrokerExaminer) -> None:
        self._examiner = examiner

    async def examine(self, *, fix: bool = False) -> list[Finding]:
        """Connect and try the rights of the account. `MessengerDown`."""
        facts = await self._examiner.facts()
        found = [_connection(facts), _rights(facts), _limits(facts), _access(facts)]
        if not facts.retained_commands:
            return [*found, Finding(_RETAINED, fine=True, text="none are stored")]
        topics = ", ".join(facts.retained_commands[:_SHOWN])
        text = f"{len(facts.retained_commands)} are stored, which every device drops: {topics}"
        if not fix:
            remedy = "`backhaul doctor --fix` removes them; publish commands without the retain flag"
            return [*found, Finding(_RETAINED, fine=False, text=text, remedy=remedy)]
        await self._examiner.clear(facts.retained_commands)
        return [*found, Finding(_RETAINED, fine=True, text=f"{len(facts.retained_commands)} removed", fixed=True)]


def _connection(facts: BrokerFacts) -> Finding:
    return Finding("broker", fine=True, text=f"{facts.address} accepts this account")


def _rights(facts: BrokerFacts) -> Finding:
    wrong = [
        f"{what} {', '.join(channels)}"
        for what, channels in (
            ("it may not read", facts.refused_reads),
            ("it may not write", facts.refused_writes),
            ("acknowledged and not delivered:", facts.unseen_writes),
        )
        if channels
    ]
    if not wrong:
        return Finding(_RIGHTS, fine=True, text="it may read every topic of the fleet and write commands")
    remedy = "`backhaul broker` makes an account with the right access list; reload the broker afterwards"
    return Finding(_RIGHTS, fine=False, text="; ".join(wrong), remedy=remedy)


def _limits(facts: BrokerFacts) -> Finding:
    wrong: list[str] = []
    if facts.maximum_qos < 1:
        wrong.append("it offers QoS 0 only (max_qos)")
    if not facts.retains:
        wrong.append("it stores no retained message (retain_available), so a restart forgets who is connected")
    if facts.max_message < MAX_MESSAGE_SIZE:
        wrong.append(f"it takes {facts.max_message} bytes a message, and a command may have {MAX_MESSAGE_SIZE}")
    if facts.receive_maximum < _FEW:
        wrong.append(f"it takes {facts.receive_maximum} messages in flight (receive_maximum)")
    if wrong:
        remedy = "raise these limits in the broker's configuration"
        return Finding("broker limits", fine=False, text="; ".join(wrong), remedy=remedy)
    text = f"messages of {MAX_MESSAGE_SIZE // 1024} KiB, QoS {facts.maximum_qos}, retained messages"
    return Finding("broker limits", fine=True, text=text)


def _access(facts: BrokerFacts) -> Finding:
    local = is_loopback(facts.address.rpartition("//")[2].rpartition(":")[0].strip("[]"))
    if facts.anonymous and not local:
        text = "it accepts connections without credentials: everyone who reaches it may command every device"
        return Finding("broker access", fine=False, text=text, remedy="set allow_anonymous false")
    if not facts.encrypted and not local:
        text = "passwords and commands cross the network unencrypted"
        return Finding("broker access", fine=False, text=text, remedy="use mqtts:// and a certificate")
    what = "it listens on this machine" if local else "encrypted, and closed to those without an account"
    return Finding("broker access", fine=True, text=what)
