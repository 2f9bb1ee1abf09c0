"""The whole way: an upload that the project's own engine commands, completes and proves.

Rule: this check alone uses a real object store. The engine is that of `backhaul mqtt`.
"""

import asyncio
import secrets

from control_plane.cli.conformance.bench.findings import require
from control_plane.cli.conformance.bench.site import Bench
from control_plane.cli.conformance.catalogue import STORE, check


@check(
    "engine.proven",
    section="5",
    title="The engine completes and proves an upload of this agent",
    remedy="Correct the other findings first; then read what the upload ended with.",
    needs=(STORE,),
)
async def proven(bench: Bench) -> None:
    """A file of three parts, from `download_file` to the proof, with the real object store."""
    # The engine takes half a second to import.
    from control_plane.cli.conformance.bench.engine import upload

    assert bench.real_store is not None  # noqa: S101 - the check needs the store
    sample = bench.samples.any()
    ended = await asyncio.shield(
        upload(
            bench.real_store, bench.client_id, sample.path, f"kit-{secrets.token_hex(8)}", patience=bench.patience * 4
        )
    )
    seen = ": ".join(str(ended.get(name)) for name in ("status", "error", "message") if ended.get(name))
    require(ended.get("status") == "completed", "`completed`", seen)
    require(ended.get("proof") not in {None, "size"}, "a proof by more than the size", ended.get("proof"))
