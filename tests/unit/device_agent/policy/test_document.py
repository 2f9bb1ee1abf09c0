"""The policy file: what is taken, and what stops the agent."""

import os
from pathlib import Path

import pytest

from device_agent.bootstrap import roots_of, rules_of
from device_agent.errors import SettingsError
from device_agent.policy.document import PathClass, PolicyDocument, read_document
from device_agent.policy.hours import is_inside, span_of
from device_agent.policy.rules import DEFAULT_POLICY, DevicePolicy
from device_agent.settings import load
from schemas.errors import SchemaError

GUIDE = Path(__file__).parents[4] / "docs" / "how-to" / "confine-a-device.md"
WHOLE = """
roots = ["/data"]
types = ["logs"]
deny = ["private", "/data/keys/**"]
default_denies = false
max_file_size = 1000
hard_links = "refuse"
owners = ["root", 1000]
hosts = ["https://s3.example.com/bucket/"]
bytes_per_day = 50
hours = ["22:00-06:00"]
commands_need = "operator"

[classes.camera]
paths = ["/data/camera"]
consent = "ask"
"""


def policy_file(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text)
    path.chmod(0o644)
    return path


def test_every_key_of_the_policy_file_is_read(tmp_path: Path) -> None:
    found = read_document(policy_file(tmp_path, WHOLE))
    assert found == PolicyDocument(
        roots=("/data",),
        types=("logs",),
        deny=("private", "/data/keys/**"),
        default_denies=False,
        max_file_size=1000,
        hard_links="refuse",
        owners=("root", 1000),
        hosts=("https://s3.example.com/bucket/",),
        bytes_per_day=50,
        hours=("22:00-06:00",),
        classes={"camera": PathClass(paths=("/data/camera",), consent="ask")},
        commands_need="operator",
    )
    assert found.spans == ((1320, 360),)


def test_the_file_of_the_guide_is_taken_and_has_every_key(tmp_path: Path) -> None:
    text = GUIDE.read_text().partition("```toml\n")[2].partition("```")[0]
    found, default = read_document(policy_file(tmp_path, text)), PolicyDocument()
    same = {name for name in PolicyDocument.__struct_fields__ if getattr(found, name) == getattr(default, name)}
    assert same == {"default_denies"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("denied = []", "denied"),
        ("deny = 'x'", "deny"),
        ("roots = ['data']", "roots"),
        ("deny = ['/a/../b']", "absolute"),
        ("deny = ['private/']", "absolute"),
        ("deny = ['~/private']", "home folder"),
        ("hours = ['22-6']", "22:00-06:00"),
        ("hours = []", "hours"),
        ("hours = ['06:00-06:00']", "06:00-06:00"),
        ("max_file_size = -1", "max_file_size"),
        ("hard_links = 'no'", "hard_links"),
        ("[classes.camera]\npaths = ['/x']\nconsent = 'never'", "consent"),
        ("[classes.camera]\npaths = ['/x//y']\nconsent = 'ask'", "absolute"),
        ("commands_need = 'anyone'", "commands_need"),
        ("deny = [", "no TOML"),
        ("hosts = ['s3.example.com/x?y']", "hosts"),
        ("owners = ['no-such-user-here']", "no-such-user-here"),
    ],
)
def test_a_wrong_policy_stops_the_agent_and_names_its_file(tmp_path: Path, text: str, named: str) -> None:
    path = policy_file(tmp_path, text)
    with pytest.raises(SettingsError, match=r"policy\.toml") as error:
        load({"CLIENT_ID": "d", "POLICY_FILE": str(path)})
    assert named in str(error.value)


def test_a_policy_that_cannot_be_read_or_that_others_can_write_stops_the_agent(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load({"CLIENT_ID": "d", "POLICY_FILE": str(tmp_path / "none")})
    path = policy_file(tmp_path, "")
    path.chmod(0o664)
    with pytest.raises(SettingsError, match="chmod go-w"):
        load({"CLIENT_ID": "d", "POLICY_FILE": str(path)})


def test_a_policy_of_another_user_stops_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner of a file can write it, also where its mode does not say so."""
    path = policy_file(tmp_path, "")
    if os.geteuid() == 0:
        os.chown(path, 1234, -1)
    owner = path.stat().st_uid
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    with pytest.raises(SettingsError, match=f"belongs to user {owner}"):
        read_document(path)
    monkeypatch.setattr("os.geteuid", lambda: owner)
    assert read_document(path) == PolicyDocument()


def test_a_link_to_a_policy_that_is_not_there_stops_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk of the policy is not mounted yet: that is not the same as no policy."""
    monkeypatch.setattr("device_agent.settings.loading.ADMINISTRATOR", tmp_path)
    (tmp_path / "policy.toml").symlink_to(tmp_path / "disk" / "policy.toml")
    with pytest.raises(SettingsError, match="cannot be read"):
        load({"CLIENT_ID": "d"})


def test_the_policy_of_the_administrator_is_read_where_no_setting_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_agent.settings.loading.ADMINISTRATOR", tmp_path)
    assert load({"CLIENT_ID": "d"}).policy is DEFAULT_POLICY
    path = policy_file(tmp_path, WHOLE)
    loaded = load({"CLIENT_ID": "d"})
    assert loaded.policy.file == path
    assert path in loaded.own_files


def test_the_presence_names_the_rules_and_none_of_their_values(tmp_path: Path) -> None:
    assert DEFAULT_POLICY.named == ()
    whole = DevicePolicy(read_document(policy_file(tmp_path, WHOLE)))
    keys = ("roots", "types", "deny", "max_file_size", "owners", "hosts", "bytes_per_day", "hours")
    assert whole.named == (
        *keys,
        "default_denies off",
        "hard_links refuse",
        "consent camera",
        "commands_need operator",
    )
    assert [line.partition(" ")[0] for line in whole.lines()] == [*keys, "hard_links", "consent", "commands_need"]
    assert DevicePolicy(PolicyDocument(roots=())).named == ("roots",)


def test_types_that_the_policy_does_not_name_do_not_exist(tmp_path: Path) -> None:
    settings = load({"CLIENT_ID": "d", "TYPES": "logs=/data/*.log,sales=/data/*.csv"}).settings
    policy = DevicePolicy(PolicyDocument(types=("logs",)))
    assert set(roots_of(settings, (), policy).types) == {"logs"}
    assert set(roots_of(settings, ()).types) == {"logs", "sales"}


@pytest.mark.parametrize(
    ("setting", "policy", "counts"), [("50", 60, 50), ("50", 40, 40), ("", 40, 40), ("50", None, 50)]
)
def test_the_smaller_cap_of_a_day_counts(setting: str, policy: int | None, counts: int) -> None:
    settings = load({"CLIENT_ID": "d", "BYTES_PER_DAY": setting}).settings
    rules = rules_of(settings, DevicePolicy(PolicyDocument(bytes_per_day=policy), Path("/etc/p.toml")))
    assert rules.day == counts
    assert rules.day_setting == ("BYTES_PER_DAY" if counts == 50 else "bytes_per_day in /etc/p.toml")


@pytest.mark.parametrize("text", ["24:00-06:00", "1:00-2:00", "10:00", "10:60-11:00", "00:00-24:01", ""])
def test_what_is_no_span_of_a_day_is_refused(text: str) -> None:
    with pytest.raises(SchemaError):
        span_of(text)


def test_a_span_passes_midnight_and_ends_before_its_end() -> None:
    night, noon = span_of("22:00-06:00"), span_of("12:00-13:00")
    inside = [hour for hour in range(24) if is_inside(60 * hour, (night, noon))]
    assert inside == [0, 1, 2, 3, 4, 5, 12, 22, 23]
    assert is_inside(24 * 60 - 1, (span_of("00:00-24:00"),))
