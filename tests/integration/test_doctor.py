"""`backhaul doctor` against two S3 servers: one that supports lifecycle rules, and one that does not."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import boto3
import pytest

from broker import access
from broker.access import Credentials
from broker.process import Broker
from control_plane.adapters.mqtt.examination import MqttExaminer
from control_plane.adapters.mqtt.messenger import MqttSettings
from control_plane.services.errors import MessengerDown
from schemas.codec import MAX_MESSAGE_SIZE
from schemas.topics import Topics
from tests.support.brokers import Fleet, mosquitto, start_fleet
from tests.support.s3_servers import S3Server, moto, nanio

__all__ = ["mosquitto", "moto", "nanio"]

NOWHERE = "mqtt://127.0.0.1:1"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MINE: Any = {"ID": "mine", "Status": "Enabled", "Filter": {"Prefix": "reports/"}, "Expiration": {"Days": 400}}


def doctor(
    server: S3Server, directory: Path, bucket: str, *options: str, mqtt_url: str = NOWHERE
) -> tuple[int, dict[str, Any]]:
    """Run the command; returns its exit code and its findings by name."""
    settings = {
        "PATH": os.environ["PATH"],
        "AWS_ENDPOINT": server.endpoint,
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "S3_BUCKET_NAME": bucket,
        "SERVER_PORT": "1",
        "MQTT_URL": mqtt_url,
        "DATABASE_URL": f"sqlite:///{directory / 'backhaul.db'}",
    }
    command = [sys.executable, "-m", "control_plane.cli.main", "--json", "doctor", *options]
    done = subprocess.run(command, env=settings, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout, done.stderr
    return done.returncode, {one["name"]: one for one in json.loads(done.stdout)["findings"]}


def test_the_lifecycle_rule_is_added_beside_other_rules(moto: S3Server, tmp_path: Path) -> None:
    """The next run finds it."""
    s3 = boto3.client(
        "s3",
        endpoint_url=moto.endpoint,
        region_name="us-east-1",
        aws_access_key_id=moto.access_key,
        aws_secret_access_key=moto.secret_key,
    )
    s3.create_bucket(Bucket="doctored")
    s3.put_bucket_lifecycle_configuration(Bucket="doctored", LifecycleConfiguration={"Rules": [MINE]})
    _, found = doctor(moto, tmp_path, "doctored")
    assert "doctor --fix" in found["lifecycle rule"]["remedy"]
    _, found = doctor(moto, tmp_path, "doctored", "--fix")
    assert found["lifecycle rule"]["fixed"] is True
    rules = s3.get_bucket_lifecycle_configuration(Bucket="doctored")["Rules"]
    mine, ours = rules
    assert (mine["ID"], mine["Expiration"]["Days"]) == ("mine", 400)
    assert ours["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 31}
    _, found = doctor(moto, tmp_path, "doctored")
    assert found["lifecycle rule"]["fine"] is True


def test_an_object_store_without_lifecycle_rules_is_recognised(
    nanio: S3Server, mosquitto: Broker, tmp_path: Path
) -> None:
    """Nanio takes the request for a different call."""
    code, found = doctor(nanio, tmp_path, "undoctored", "--fix", mqtt_url=mosquitto.address.url)
    assert code == 0, found
    assert found["bucket access"]["text"] == "nothing is readable without credentials"
    assert found["database schema"]["fixed"]
    assert "has no lifecycle rules" in found["lifecycle rule"]["text"]
    assert found["proof"]["fine"]
    assert found["multipart uploads"]["fine"]


def test_wrong_credentials_are_reported_with_the_setting(nanio: S3Server, tmp_path: Path) -> None:
    server = S3Server(**{**{name: getattr(nanio, name) for name in nanio.__slots__}, "secret_key": "x" * 40})
    code, found = doctor(server, tmp_path, "undoctored")
    assert code == 1
    assert "AWS_SECRET_ACCESS_KEY" in found["object store"]["text"]
    assert not found["broker"]["fine"]
    assert "MQTT_URL" in found["broker"]["remedy"]
    assert found["database"]["fine"]
    assert not (tmp_path / "backhaul.db").exists()


def test_a_bucket_that_everyone_may_read_is_found(moto: S3Server, tmp_path: Path) -> None:
    """Moto asks nobody for a signature."""
    code, found = doctor(moto, tmp_path, "open-to-all")
    assert code == 1
    assert found["bucket access"]["fine"] is False
    assert "without credentials" in found["bucket access"]["text"]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """The shipped configuration of the broker, with accounts."""
    site = start_fleet(tmp_path)
    with site.broker:
        yield site


async def test_the_rights_of_an_account_are_tried(fleet: Fleet) -> None:
    """That of a control plane has all that it needs; that of a device neither reads the fleet nor commands it."""
    plane = access.enroll_service(fleet.directory, "control-plane")
    device = access.enroll(fleet.directory, "restaurant-1")
    fleet.broker.reload()

    def examiner(account: Credentials, port: int) -> MqttExaminer:
        url = f"mqtt://127.0.0.1:{port}"
        return MqttExaminer(MqttSettings(url=url, username=account.username, password=account.password), Topics())

    good = await examiner(plane, fleet.services).facts()
    assert (good.refused_reads, good.refused_writes, good.unseen_writes) == ((), (), ())
    assert good.anonymous is False
    assert good.max_message == MAX_MESSAGE_SIZE
    bad = await examiner(device, fleet.devices).facts()
    # Mosquitto acknowledges what it does not deliver.
    assert bad.unseen_writes or bad.refused_writes or bad.refused_reads
    with pytest.raises(MessengerDown):
        await examiner(Credentials("control-plane", "wrong"), fleet.services).facts()


async def test_retained_commands_are_found_and_removed(mosquitto: Broker) -> None:
    topics = Topics("doctored/v1")
    examiner = MqttExaminer(MqttSettings(url=mosquitto.address.url), topics)
    port = mosquitto.address.port
    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.publish(topics.command("a"), b"{}", qos=1, retain=True)
        await client.publish(topics.presence("a"), b"{}", qos=1, retain=True)
    assert (await examiner.facts()).retained_commands == (topics.command("a"),)
    await examiner.clear((topics.command("a"),))
    assert (await examiner.facts()).retained_commands == ()
