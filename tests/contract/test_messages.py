"""Golden messages, some from the Go demo that this project began with: each decodes as expected and fits its schema.

Rule: every file in `golden/` has an expected Struct here, and every expected Struct a file. Expected values are
literals; none is derived from the code under test.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from schemas.codec import Message, decode, decode_command, decode_response, encode
from schemas.generate.documents import documents
from schemas.messages import (
    ActiveUpload,
    AgentInfo,
    Birth,
    CancelUpload,
    CloseUpload,
    Command,
    CurrentUpload,
    DownloadFile,
    FileEntry,
    FileList,
    GrantParts,
    Health,
    HealthCheck,
    Hello,
    ListFiles,
    Nothing,
    Presence,
    Response,
    SelectFiles,
    Selection,
    Status,
    UploadConfig,
    UploadReport,
    Wait,
)
from schemas.values import (
    BudgetUse,
    DeviceBudget,
    DigestName,
    ErrorCode,
    Fingerprint,
    Outcome,
    Pick,
    PresignedPart,
    ResponseStatus,
    SystemInfo,
    UploadOptions,
    WantedPart,
)

GOLDEN: Final = Path(__file__).parent / "golden"
SCHEMAS: Final[dict[str, Any]] = {name.removesuffix(".json"): json.loads(text) for name, text in documents().items()}

INSTALL: Final = "0192d3a4-7c11-7e52-9f0e-5b1c2d3e4f50"
MESSAGE: Final = "0192d3a5-0001-7000-8000-000000000001"
UPLOAD: Final = "0192d3a5-0001-7000-8000-0000000000aa"
TEN: Final = datetime(2025, 11, 1, 10, tzinfo=UTC)
PATH: Final = "/data/test-file.bin"
DIGEST: Final = "CY9rzUYh03PK3k6DJie09g=="
SYSTEM: Final = SystemInfo(hostname="till-7", os="linux", arch="aarch64")
HALF: Final = CurrentUpload("upload123", 1, PATH, 50.0, 5242880, 10485760, 1, 2)

COMMANDS: Final[dict[str, Command]] = {
    "command-go-demo": Command(
        "abc123",
        "download_file",
        DownloadFile(
            file_path=PATH,
            upload_config=UploadConfig(
                upload_id="upload123",
                bucket="file-download-system-uploads",
                key="uploads/restaurant-1/20251101-123456-test-file.bin",
                chunk_size=5242880,
                presigned_urls=(PresignedPart(1, "https://s3..."), PresignedPart(2, "https://s3...")),
            ),
        ),
    ),
    "command-download": Command(
        MESSAGE,
        "download_file",
        DownloadFile(
            file_path=PATH,
            metadata={"key": "value"},
            upload_config=UploadConfig(UPLOAD, 1, "control-plane", DigestName.MD5, 5242880),
        ),
        issued_at=TEN,
        epoch=42,
        install_id=INSTALL,
    ),
    "command-by-hand": Command("by-hand-1", "download_file", DownloadFile(file_path=PATH)),
    "command-by-hand-default-file": Command("by-hand-2", "download_file", DownloadFile()),
    "command-options": Command(
        MESSAGE,
        "download_file",
        DownloadFile(
            options=UploadOptions(-5, 125_000, "prefix", "gzip", 3600),
            upload_config=UploadConfig(UPLOAD, 3, "control-plane", DigestName.SHA256, 8388608),
            acknowledges=4,
        ),
    ),
    "command-grant": Command(
        "0192d3a5-0002-7000-8000-000000000002",
        "grant_parts",
        GrantParts(
            upload_config=UploadConfig(
                UPLOAD,
                1,
                expires_in=900,
                presigned_urls=(
                    PresignedPart(1, "https://s3.example.com/bucket/key?partNumber=1", {"content-md5": DIGEST}),
                ),
            ),
            acknowledges=7,
            completed_parts=((2, 27), (40, 40)),
        ),
        epoch=42,
        install_id=INSTALL,
    ),
    "command-grant-beside": Command(
        "0192d3a5-0002-7000-8000-000000000003",
        "grant_parts",
        GrantParts(
            upload_id=UPLOAD,
            attempt=2,
            expires_in=0.5,
            presigned_urls=(PresignedPart(10_000, "http://127.0.0.1:9000/b/k"),),
        ),
    ),
    "command-cancel": Command("cancel-1", "cancel_upload", CancelUpload(upload_id=UPLOAD)),
    "command-close": Command(
        "close-1",
        "close_upload",
        CloseUpload(upload_id=UPLOAD, attempt=1, outcome="completed", acknowledges=9),
    ),
    "command-close-later-version": Command(
        "close-2", "close_upload", CloseUpload(upload_id=UPLOAD, attempt=1, outcome="archived")
    ),
    "command-list-files": Command("list-1", "list_files", ListFiles("/data/*.bin", 500, "c1", DigestName.MD5)),
    "command-list-folders": Command("list-2", "list_files", ListFiles("/data/*", folders=True)),
    "command-select-files": Command(
        "select-1",
        "select_files",
        SelectFiles(
            "sales-2026-11-26",
            ("/data/**/*.csv",),
            ("**/debug.csv", "tmp"),
            "sales",
            newer_than=86_400.0,
            older_than=60.5,
            min_size=1,
            max_size=52_428_800,
            pick=Pick.LARGEST,
            max_files=100,
            selection="select-0",
            offset=500,
            limit=250,
        ),
    ),
    "command-select-files-least": Command("select-2", "select_files", SelectFiles("j", ("/data/*",))),
    "command-grant-wait": Command(
        "grant-2",
        "grant_parts",
        GrantParts(
            upload_id=UPLOAD,
            attempt=1,
            acknowledges=8,
            wait=Wait("outside of the window", 3_600.0),
            max_bytes_per_second=125_000,
        ),
    ),
    "command-health-check": Command("health-1", "health_check", HealthCheck()),
}
RESPONSES: Final[dict[str, Response]] = {
    "response-go-demo": Response(
        "abc123", "download_file", "success", UploadReport(etags={1: "etag-for-part-1", 2: "etag-for-part-2"})
    ),
    "response-offer": Response(
        MESSAGE,
        "download_file",
        "in_progress",
        UploadReport(
            UPLOAD,
            1,
            "control-plane",
            PATH,
            10485760,
            Fingerprint(size=10485760, mtime_ns=3, ctime_ns=4, device=1, inode=2),
            etags={1: '"098f6bcd4621d373cade4e832627b4f6"'},
            wanted_parts=(WantedPart(2, 5242880, DIGEST),),
        ),
        epoch=42,
        sequence=7,
    ),
    "response-offer-by-hand": Response(
        "by-hand-1",
        "download_file",
        "in_progress",
        UploadReport(
            "by-hand-1",
            1,
            "control-plane",
            PATH,
            0,
            chunk_size=5242880,
            digest=DigestName.MD5,
            options=UploadOptions(on_change="prefix"),
            metadata={"note": "Grüße", "n": [1, 2.5, None, True]},
            wanted_parts=(WantedPart(1, 0, "1B2M2Y8AsgTpgAmY7PhCfg=="),),
        ),
        epoch=42,
        sequence=1,
    ),
    "response-error": Response(
        MESSAGE,
        "download_file",
        "error",
        UploadReport(UPLOAD, 1),
        epoch=42,
        sequence=1,
        error="file_not_found",
        message="there is no file /data/none.bin",
    ),
    "response-later-version": Response(
        MESSAGE, "download_file", "postponed", UploadReport(UPLOAD, 1), error="battery_low", message="charging"
    ),
    "response-later-action": Response("m-9", "rotate_keys", "success", Nothing()),
    "response-list-files": Response(
        "list-1",
        "list_files",
        "success",
        FileList((FileEntry("/data/test file ü.bin", 10485760, 1761991200000000000, DIGEST),), "c2"),
        epoch=42,
    ),
    "response-list-folders": Response(
        "list-2", "list_files", "success", FileList((FileEntry("/data/logs", 0, 5, folder=True),)), epoch=42
    ),
    "response-selection": Response(
        "select-1",
        "select_files",
        "success",
        Selection(
            "sales-2026-11-26",
            "select-0",
            complete=True,
            files=1_501,
            bytes=2**40,
            left_out=500,
            offset=500,
            entries=(FileEntry("/data/a.csv", 10, 1761991200000000000), FileEntry("/data/b.csv", 9, -5)),
            next=502,
        ),
        epoch=42,
    ),
    "response-selection-in-progress": Response(
        "select-2", "select_files", "success", Selection("j", "select-2", complete=False), epoch=42
    ),
    "response-health": Response(
        "health-1", "health_check", "success", Health("1.0.0", 1, SYSTEM, {"unreadable_messages": 3}), epoch=42
    ),
    "response-hello": Response(
        "hello-1",
        "hello",
        "success",
        Hello(INSTALL, (ActiveUpload(UPLOAD, 1, 7, "in_progress", "control-plane"),), more=False),
        epoch=42,
    ),
    "response-cancelled-unknown": Response("cancel-1", "download_file", "cancelled", UploadReport(UPLOAD, 1), epoch=42),
}
OTHERS: Final[dict[str, Status | Presence | Birth]] = {
    "status-go-demo": Status("uploading", current_upload=CurrentUpload("upload123", file_path=PATH, progress=45.5)),
    "status-uploading": Status(
        "uploading",
        "restaurant-1",
        42,
        HALF,
        (HALF,),
        SystemInfo(
            "till-7", "linux", "aarch64", 86400.5, 0.25, 4294967296, 1073741824, 31268536320, disk_free=21474836480
        ),
    ),
    "status-waiting": Status(
        "waiting",
        "restaurant-1",
        42,
        CurrentUpload("upload123", 2, PATH, 0, 0, 10485760, 0, 2, "the store answers 503; next try in 8 s"),
    ),
    "status-idle": Status("idle", "restaurant-1", 42),
    "presence-online": Presence(
        "restaurant-1",
        "online",
        INSTALL,
        42,
        0,
        TEN,
        AgentInfo("1.0.0", (1,), "till-7", "linux", "aarch64", ("deny", "consent camera")),
        {"site": "berlin"},
        ("download_file", "list_files"),
        PATH,
    ),
    "presence-places": Presence(
        "restaurant-1",
        "online",
        INSTALL,
        42,
        1,
        capabilities=("select_files", "folders", "wait", "rate"),
        timezone="Europe/Berlin",
        roots=("/data", "/var/log"),
        types=("sales",),
    ),
    "presence-budget": Presence(
        "restaurant-1",
        "online",
        INSTALL,
        42,
        1,
        budget=DeviceBudget(
            day=BudgetUse(50_000_000, 50_003_912, TEN),
            metered_month=BudgetUse(1_000_000_000, 0),
            metered=True,
            holds=("device_budget",),
        ),
    ),
    "presence-will": Presence("restaurant-1", "offline", INSTALL, 42, 2**53 - 1),
    "presence-later-version": Presence("restaurant-1", "sleeping", INSTALL, 43, 2, agent=AgentInfo("7.0.0", (6, 7))),
    "birth": Birth("control-plane-1", TEN),
}
EXPECTED: Final[dict[str, Message]] = {**COMMANDS, **RESPONSES, **OTHERS}


def read(data: bytes, like: Message) -> Message:
    match like:
        case Command():
            return decode_command(data)
        case Response():
            return decode_response(data)
        case Status():
            return decode(Status, data)
        case Presence():
            return decode(Presence, data)
        case Birth():
            return decode(Birth, data)


def schema_of(message: Message) -> Any:  # noqa: ANN401  (a JSON tree)
    return SCHEMAS[type(message).__name__.lower()]


def test_every_golden_file_is_expected() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_golden_message_decodes(name: str) -> None:
    assert read((GOLDEN / f"{name}.json").read_bytes(), EXPECTED[name]) == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_golden_message_is_valid_in_both_dialects(name: str) -> None:
    """Draft 7 too, since AsyncAPI tools use it."""
    golden = json.loads((GOLDEN / f"{name}.json").read_bytes())
    for dialect in (Draft202012Validator, Draft7Validator):
        assert list(dialect(schema_of(EXPECTED[name])).iter_errors(golden)) == []


@pytest.mark.parametrize("name", EXPECTED)
def test_an_encoded_message_decodes_to_the_same_value_and_is_valid(name: str) -> None:
    data = encode(EXPECTED[name])
    assert read(data, EXPECTED[name]) == EXPECTED[name]
    Draft202012Validator(schema_of(EXPECTED[name])).validate(json.loads(data))


def test_unknown_values_are_kept_and_read_as_unknown() -> None:
    response = decode_response((GOLDEN / "response-later-version.json").read_bytes())
    assert (response.status, ResponseStatus.read(response.status)) == ("postponed", ResponseStatus.UNKNOWN)
    assert (response.error, ErrorCode.read(response.error or "")) == ("battery_low", ErrorCode.UNKNOWN)
    assert Outcome.read("archived") is Outcome.UNKNOWN
    assert Outcome.read("expired") is Outcome.EXPIRED


@pytest.mark.parametrize(
    ("about", "upload", "attempt"),
    [
        (CloseUpload(upload_config=UploadConfig("inside", 2)), "inside", 2),
        (CloseUpload(upload_id="beside", attempt=3), "beside", 3),
        (CloseUpload(upload_config=UploadConfig("inside", 2), upload_id="beside", attempt=3), "inside", 2),
        (CloseUpload(upload_config=UploadConfig(), upload_id="beside"), "beside", 1),
        (CloseUpload(), None, 1),
    ],
)
def test_an_upload_is_named_in_either_place(about: CloseUpload, upload: str | None, attempt: int) -> None:
    assert (about.about, about.about_attempt) == (upload, attempt)


def test_urls_are_granted_in_either_place() -> None:
    urls = (PresignedPart(1, "https://s3"),)
    inside = GrantParts(upload_config=UploadConfig(presigned_urls=urls, expires_in=9.0))
    beside = GrantParts(upload_config=UploadConfig(), presigned_urls=urls, expires_in=9.0)
    assert [(grant.urls, grant.lifetime) for grant in (inside, beside)] == [(urls, 9.0), (urls, 9.0)]
    assert (GrantParts().urls, GrantParts().lifetime) == ((), None)


@pytest.mark.parametrize(
    ("message", "always"),
    [
        (Response("m", "download_file", "success", UploadReport("u")), {"upload_id": "u", "attempt": 1}),
        (Response("m", "list_files", "success", FileList()), {"files": []}),
        (
            Response("m", "select_files", "success", Selection("j", "s", complete=False)),
            {
                "job_id": "j",
                "selection": "s",
                "complete": False,
                "files": 0,
                "bytes": 0,
                "left_out": 0,
                "offset": 0,
                "entries": [],
            },
        ),
        (
            Response("m", "health_check", "success", Health()),
            {"version": "", "active_uploads": 0, "system_info": {}},
        ),
        (Response("m", "hello", "success", Hello("i")), {"install_id": "i", "active": [], "more": False}),
        (Command("m", "close_upload", CloseUpload(upload_id="u")), {"upload_id": "u", "outcome": "unknown"}),
        (Command("m", "list_files", ListFiles("*")), {"pattern": "*", "limit": 100}),
        (Command("m", "health_check", HealthCheck()), {}),
    ],
)
def test_required_fields_are_sent_even_with_their_default(message: Message, always: dict[str, Any]) -> None:
    assert json.loads(encode(message))["payload"] == always


def test_a_status_and_a_presence_send_their_zeros() -> None:
    status = json.loads(encode(Status("uploading", current_upload=CurrentUpload("u"))))
    assert status["current_upload"] == {
        "upload_id": "u",
        "attempt": 1,
        "progress": 0.0,
        "bytes_sent": 0,
        "file_size": 0,
        "completed_parts": 0,
        "total_parts": 0,
    }
    presence = json.loads(encode(Presence("c", "online", "i", 0, 0, agent=AgentInfo("1.0.0"))))
    assert (presence["epoch"], presence["sequence"]) == (0, 0)
    assert presence["agent"] == {"version": "1.0.0", "protocol": [1]}
    hello = json.loads(encode(Response("m", "hello", "success", Hello("i", (ActiveUpload("u", 1),)))))
    assert hello["payload"]["active"] == [{"upload_id": "u", "attempt": 1, "sequence": 0, "status": "in_progress"}]


def test_no_message_shares_its_empty_map_with_another() -> None:
    first, second = DownloadFile(), DownloadFile()
    first.metadata["key"] = "value"
    assert second.metadata == {}
