"""A file of 10,000 parts: how long messages become, and whether memory grows with the file.

Rule: real agent, real control plane, every byte digested and sent; the file is one hole, so that it needs no disk.
"""

import asyncio
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.agent import CLIENT, Place, agent_process
from benchmarks.figures import MIB, Figure, Report
from benchmarks.owner import owning
from benchmarks.peers import PART_SIZE, Sink
from benchmarks.processes import peak_bytes, resident_bytes
from benchmarks.site import Site, get_json, running_site
from control_plane.cli.simulate.http_pool import HttpPool
from schemas.codec import MAX_MESSAGE_SIZE

PATIENCE: Final = 900.0
_POLL: Final = 0.5


def grants(parts: int = 10_000) -> Report:
    """One upload of that many parts."""
    with tempfile.TemporaryDirectory() as directory, running_site(Path(directory), {"S3_DIGEST": "crc32"}) as site:
        folder = Path(directory)
        with (folder / "large.bin").open("wb") as file:
            os.truncate(file.fileno(), parts * PART_SIZE)
        place = Place(folder, site.broker, Sink(site.sink_url))
        with agent_process(place, folder / "state") as agent:
            return asyncio.run(_measure(site, agent.pid, folder / "large.bin", parts))


async def _ended(url: str) -> dict[str, Any]:
    """The upload once it is over."""
    async with asyncio.timeout(PATIENCE):
        while True:
            upload: dict[str, Any] = await asyncio.to_thread(get_json, url)
            if upload["status"] in {"completed", "failed", "cancelled"}:
                return upload
            await asyncio.sleep(_POLL)


async def _measure(site: Site, agent: int, path: Path, parts: int) -> Report:
    http = HttpPool(2)
    async with owning(site.broker.address, site.sink_url, http) as listener:
        listener.subscribe_to_commands()
        await listener.online(CLIENT)
        await asyncio.sleep(1)
        before = {"agent": resident_bytes(agent), "control plane": resident_bytes(site.plane.pid)}
        body = json.dumps({"file_path": str(path)}).encode()
        headers = {"Content-Type": "application/json"}
        answer = await http.send("POST", f"{site.server}/trigger-download/{CLIENT}", headers, body)
        upload_id = json.loads(answer.body)["upload_id"]
        upload = await _ended(f"{site.server}/uploads/{upload_id}")
    if upload["status"] != "completed":
        message = f"the upload ended as {upload}"
        raise RuntimeError(message)
    after = {"agent": peak_bytes(agent), "control plane": peak_bytes(site.plane.pid)}
    grown = {name: after[name] - before[name] for name in before}
    longest = f"longest message, a file of {parts:,} parts"
    figures = [
        Figure(longest, listener.largest / 1024, "KiB", at_most=MAX_MESSAGE_SIZE / 1024),
        *(Figure(f"{name} memory, over what it was before", size / MIB, "MiB") for name, size in grown.items()),
        Figure(f"agent peak, a file of {parts:,} parts", peak_bytes(agent) / MIB, "MiB", at_most=32),
    ]
    return Report("grants", figures, {"upload": upload, "before_bytes": before})
