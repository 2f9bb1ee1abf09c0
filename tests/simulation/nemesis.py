"""The nemesis: draws a history's faults, causes them at drawn moments, and ends all of them before the calm.

Rule: at most one fault of a kind at a time in device, broker and object store, so that the system can survive each.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from schemas.codec import encode
from schemas.messages import Command, DownloadFile
from schemas.topics import Channel
from schemas.values import Action

if TYPE_CHECKING:
    from tests.simulation.device import Device
    from tests.simulation.history import History

STRIKES: Final = 5
"""How often one fault may occur in a history."""

PATIENCE: Final = 12


class Nemesis:
    """Causes faults at drawn moments of the first `span` seconds."""

    def __init__(self, history: "History", span: float) -> None:
        self._history = history
        self._world = history.world
        acts: dict[str, Callable[[], None]] = {
            "replay": self._replay,
            "poison": self._poison,
            "cut": self._cut,
            "restart": lambda: self._stop_broker(forgets=False),
            "amnesia": lambda: self._stop_broker(forgets=True),
            "freeze": self._freeze,
            "crash": self._crash,
            "wipe": lambda: self._device().crash(power=True, wipe=True),
            "disk": self._fill_disk,
            "plane": self._kill_plane,
            "locked": self._lock,
            "outage": self._outage,
            "lost": self._lose_multipart,
            "file": self._change_file,
            "cancel": self._cancel,
            "clock": self._jump,
            "typed": self._type,
            "flaky": self._spoil_disk,
        }
        for name, act in acts.items():
            if name in self._world.faults:
                for _ in range(self._world.chance.randint(1, STRIKES if name not in {"wipe", "clock"} else 1)):
                    self._world.later(self._world.between(0.0, span), self._strike, name, act)

    def _strike(self, name: str, act: Callable[[], None], waits: int = 0) -> None:
        """Cause the fault, preferably while an upload is under way."""
        if self._world.calm:
            return
        if waits < PATIENCE and not self._history.busy:
            self._world.later(3.0, self._strike, name, act, waits + 1)
            return
        self._world.later(self._world.between(0.0, 2 * self._world.pace), self._act, name, act)

    def _act(self, name: str, act: Callable[[], None]) -> None:
        if not self._world.calm:
            self._world.note("nemesis", name)
            act()

    def _device(self) -> "Device":
        """A device that works on an upload, if there is one."""
        devices = list(self._history.devices.values())
        return self._world.chance.choice([device for device in devices if device.busy] or devices)

    # Messages.

    def _replay(self) -> None:
        broker, chance = self._history.broker, self._world.chance
        if broker.commands:
            broker.command(*chance.choice(broker.commands))
        if broker.responses:
            client_id, data = chance.choice(broker.responses)
            broker.publish(client_id, Channel.RESPONSE, data)

    def _poison(self) -> None:
        junk = self._world.chance.choice(
            [b"", b"\xff\xfe", b"[" * 5000, b'{"message_id":"p","action":"download_file"}', b"{}"]
        )
        client_id, broker = self._device().client_id, self._history.broker
        broker.command(client_id, junk)
        for channel in (Channel.RESPONSE, Channel.STATUS):
            broker.publish(client_id, channel, junk)

    def _type(self) -> None:
        """Publish a command as a person with a plain MQTT client does."""
        path = self._history.a_path()
        number = self._world.chance.randrange(10**6)
        command = Command(f"typed-{number}", Action.DOWNLOAD_FILE, DownloadFile(file_path=path))
        self._history.broker.command(self._device().client_id, encode(command))

    # Processes and machines.

    def _cut(self) -> None:
        process = self._device().process
        if process is not None:
            for network in process.networks:
                network.cut()

    def _stop_broker(self, *, forgets: bool) -> None:
        broker = self._history.broker
        if broker.up:
            broker.stop(forgets=forgets)
            self._world.later(self._world.between(0.5, 40.0), broker.start)

    def _freeze(self) -> None:
        self._history.broker.frozen_until = self._world.now() + self._world.between(2.0, 30.0)

    def _crash(self) -> None:
        device, chance = self._device(), self._world.chance
        if device.process is None:
            return
        if chance.random() < 0.5:
            device.disk.dies_at = chance.randint(1, 4)
            return
        path = self._path_in_work(device)
        device.crash(power=chance.random() < 0.5)
        if "file" in self._world.faults:
            self._change(device, path)

    def _fill_disk(self) -> None:
        disk = self._device().disk
        disk.room = self._world.chance.randint(0, 40)
        self._world.later(self._world.between(1.0, 60.0), setattr, disk, "room", None)

    def _spoil_disk(self) -> None:
        disk = self._device().disk
        disk.flaky = self._world.between(0.1, 0.6)
        self._world.later(self._world.between(1.0, 60.0), setattr, disk, "flaky", 0.0)

    def _kill_plane(self) -> None:
        plane = self._world.chance.choice(self._history.planes)
        plane.kill()
        self._world.later(self._world.between(0.2, 60.0), plane.start)

    def _lock(self) -> None:
        self._history.database.locked_until = self._world.now() + self._world.between(1.0, 20.0)

    def _jump(self) -> None:
        skew = self._world.chance.choice([-400.0, -30.0, 30.0, 400.0, 4000.0])
        for plane in self._history.planes:
            plane.clock.skew = skew

    # The object store, files, operators.

    def _outage(self) -> None:
        self._history.bucket.outage_until = self._world.now() + self._world.between(2.0, 90.0)

    def _lose_multipart(self) -> None:
        bucket = self._history.bucket
        if bucket.multiparts:
            s3_upload_id = self._world.chance.choice(list(bucket.multiparts))
            bucket.abort(bucket.multiparts[s3_upload_id].s3_key, s3_upload_id)

    def _change_file(self) -> None:
        device = self._device()
        self._change(device, self._path_in_work(device))

    def _path_in_work(self, device: "Device") -> str:
        runs = [] if device.process is None else list(device.process.agent.uploads)
        return self._world.chance.choice([run.transfer.order.file_path for run in runs] or [self._history.a_path()])

    def _change(self, device: "Device", path: str) -> None:
        how = device.files.change(path, log=path in self._history.logs)
        self._world.note(device.client_id, f"{path} was {how}")

    def _cancel(self) -> None:
        self._history.operator.cancel_one()

    def relent(self) -> None:
        """Begin the calm: end every fault."""
        history, world = self._history, self._world
        world.calm = True
        history.broker.up, history.broker.frozen_until = True, 0.0
        history.bucket.outage_until = history.database.locked_until = 0.0
        for plane in history.planes:
            plane.clock.skew = 0.0
            plane.start()
        for device in history.devices.values():
            device.disk.room, device.disk.dies_at, device.disk.flaky = None, None, 0.0
