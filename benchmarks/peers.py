"""What other programs take for the same upload: `aws s3 cp`, boto3 and rclone, and a bare loop as the floor.

Rule: the same file, sink, part size and number of parts in flight; whole processes, started for one upload each.
"""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.processes import Cost, run
from benchmarks.site import BUCKET, ROOT

FOLDER: Final = ROOT / "build" / "peers"
PART_SIZE: Final = 5 * 1024 * 1024
AT_ONCE: Final = 4
_BIN: Final = FOLDER / "bin"
_CREDENTIALS: Final = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True, slots=True)
class Sink:
    """Where to upload to; `certificate` is trusted if given."""

    url: str
    certificate: Path | None = None

    @property
    def settings(self) -> dict[str, str]:
        """What makes every peer trust it."""
        if self.certificate is None:
            return {}
        path = str(self.certificate)
        return {"AWS_CA_BUNDLE": path, "SSL_CERT_FILE": path}


def install() -> None:
    """Awscli and boto3 in a separate environment, so that their versions do not depend on this project's."""
    if not (_BIN / "aws").exists():
        subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
        subprocess.run([_BIN / "pip", "install", "--quiet", "awscli", "boto3"], check=True)
    if shutil.which("rclone") is None:
        message = "rclone is not installed: apt-get install rclone"
        raise RuntimeError(message)


def versions() -> Mapping[str, str]:
    """Of the installed peers."""
    listed = subprocess.run([_BIN / "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    pairs = (line.partition("==") for line in listed.splitlines())
    return {name: number for name, _, number in pairs if name in {"awscli", "boto3", "botocore", "s3transfer"}}


def aws(path: Path, sink: Sink) -> Cost:
    """`aws s3 cp`."""
    config = path.parent / "aws.ini"
    config.write_text(
        "[default]\ns3 =\n"
        f"  multipart_chunksize = {PART_SIZE}\n  multipart_threshold = {PART_SIZE}\n"
        f"  max_concurrent_requests = {AT_ONCE}\n  addressing_style = path\n"
    )
    command = (str(_BIN / "aws"), "s3", "cp", "--quiet", "--endpoint-url", sink.url, str(path), f"s3://{BUCKET}/aws")
    return run(command, {**_CREDENTIALS, **sink.settings, "AWS_CONFIG_FILE": str(config)})


def boto3(path: Path, sink: Sink) -> Cost:
    """boto3's `upload_file`."""
    program = (
        "import boto3, sys\nfrom boto3.s3.transfer import TransferConfig\n"
        "url, path, bucket, size, many = sys.argv[1:]\n"
        "size, many = int(size), int(many)\n"
        "config = TransferConfig(multipart_chunksize=size, multipart_threshold=size, max_concurrency=many)\n"
        "boto3.client('s3', endpoint_url=url).upload_file(path, bucket, 'boto3', Config=config)\n"
    )
    command = (str(_BIN / "python"), "-c", program, sink.url, str(path), BUCKET, str(PART_SIZE), str(AT_ONCE))
    return run(command, {**_CREDENTIALS, **sink.settings})


def rclone(path: Path, sink: Sink) -> Cost:
    """`rclone copyto`."""
    options = {
        "--s3-provider": "Other",
        "--s3-endpoint": sink.url,
        "--s3-access-key-id": "benchmark",
        "--s3-secret-access-key": "benchmark",
        "--s3-chunk-size": f"{PART_SIZE}B",
        "--s3-upload-cutoff": f"{PART_SIZE}B",
        "--s3-upload-concurrency": str(AT_ONCE),
    }
    flags = [word for pair in options.items() for word in pair]
    trust = ("--ca-cert", str(sink.certificate)) if sink.certificate else ()
    command = ("rclone", "copyto", str(path), f":s3:{BUCKET}/rclone", "--s3-no-check-bucket", *trust, *flags)
    # Without this it uploads nothing when an object of this size and time is there already.
    command = (*command, "--ignore-times")
    return run(command, {"RCLONE_CONFIG": "/dev/null"})


def floor(path: Path, sink: Sink) -> Cost:
    """A bare loop of PUTs over `http.client`, without digests and without a control plane."""
    arguments = (sink.url, str(path), str(PART_SIZE), str(AT_ONCE))
    return run((sys.executable, "-m", "benchmarks.bare", *arguments), {**sink.settings, "PYTHONPATH": str(ROOT)})
