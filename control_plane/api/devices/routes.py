"""Devices over REST: enrol, list, look, rotate, revoke; and the calls of a device without an account.

Rule: an answer with a bundle is never stored by a cache. The two calls of a device need no token, and answer nothing
unless `ENROLL=on`.
"""

from typing import Annotated

from fastapi import Depends, Path, Query, Request, Response
from starlette.exceptions import HTTPException

from control_plane.api.auth import ENROLL_PATH, Caller, needs
from control_plane.api.bodies import matching
from control_plane.api.devices import models
from control_plane.api.documents import problems
from control_plane.api.parameters import ClientId, Paged
from control_plane.api.tokens.reach import router_of_calls
from control_plane.domain.access import Scope
from control_plane.domain.devices import Device
from control_plane.services.devices.requests import EnrollmentRequests
from control_plane.services.devices.service import DeviceService
from schemas.signing.enrolment import EnrollRequest, PollRequest

router = router_of_calls(tags=["devices"])

DevicesQuery = Annotated[Paged, Query()]
ForgetQuery = Annotated[models.Forgetting, Query()]
UserCode = Annotated[
    str,
    *matching(r"^[A-Za-z0-9]{4}-?[A-Za-z0-9]{4}\Z", "must look like 4F7K-2QXM"),
    Path(description="The code that the device shows.", examples=[models.CODE]),
]

BatchId = Annotated[
    str,
    *matching(r"^[0-9a-f]{16}\Z", "must be 16 hex digits"),
    Path(description="The id of a batch.", examples=[models.BATCH["batch_id"]]),
]


async def _devices_of(request: Request) -> DeviceService:
    devices: DeviceService = request.app.state.devices
    return devices


async def _requests_of(request: Request) -> EnrollmentRequests:
    found: EnrollmentRequests | None = request.app.state.enrollments
    if found is None:
        raise HTTPException(404, "this control plane enrols no devices by code (ENROLL=on)")
    return found


Devices = Annotated[DeviceService, Depends(_devices_of)]
Requests = Annotated[EnrollmentRequests, Depends(_requests_of)]


async def _shown(devices: DeviceService, *found: Device) -> list[models.EnrolledDevice]:
    """Devices with the list of keys that each of them obeys."""
    versions = await devices.keys_versions(one.client_id for one in found)
    return [models.EnrolledDevice.of(one, versions.get(one.client_id)) for one in found]


def _secret(response: Response) -> None:
    response.headers["Cache-Control"] = "no-store"


@router.post(
    "/devices",
    operation_id="enrollDevice",
    openapi_extra=needs(Scope.DEVICES_ADMIN),
    summary="Enrol a device",
    status_code=201,
    responses=problems(400, 409, 415, 422),
)
async def enroll_device(
    response: Response, devices: Devices, caller: Caller, body: models.EnrollBody
) -> models.BundleDocument:
    """Make the account of a device, and its bundle, which is shown in this answer only.

    The first presence with the claim of this bundle pins the device's key.
    """
    bundle = await devices.enroll(caller, body.new)
    response.headers["Location"] = f"/devices/{body.client_id}"
    _secret(response)
    return models.BundleDocument.of(bundle)


@router.get(
    "/devices",
    operation_id="listDevices",
    openapi_extra=needs(Scope.CLIENTS_READ),
    summary="List devices",
    responses=problems(422),
)
async def list_devices(devices: Devices, caller: Caller, query: DevicesQuery) -> models.EnrolledDevices:
    """Enrolled devices by id, with the fingerprints of their keys. A client that was never enrolled is not here."""
    found, cursor = await devices.devices(caller, query.page)
    return models.EnrolledDevices(devices=await _shown(devices, *found), cursor=cursor)


@router.get(
    "/devices/{client_id}",
    operation_id="getDevice",
    openapi_extra=needs(Scope.CLIENTS_READ),
    summary="Look at one device",
    responses=problems(404, 422),
)
async def get_device(client_id: ClientId, devices: Devices, caller: Caller) -> models.EnrolledDevice:
    """One device: its state, its key, and whether another key was seen under its name."""
    (shown,) = await _shown(devices, await devices.device(caller, client_id))
    return shown


@router.post(
    "/devices/{client_id}/rotate",
    operation_id="rotateDevice",
    openapi_extra=needs(Scope.DEVICES_ADMIN),
    summary="Make a new bundle for a device",
    responses=problems(400, 404, 409, 415, 422),
)
async def rotate_device(
    client_id: ClientId, response: Response, devices: Devices, caller: Caller, body: models.Wanted
) -> models.BundleDocument:
    """A new password and a new claim; the former password is refused. Its key counts until another is claimed.

    A revoked device is enrolled again; its revoked key stays refused.
    """
    bundle = await devices.rotate(caller, body.of(client_id))
    _secret(response)
    return models.BundleDocument.of(bundle)


@router.post(
    "/devices/{client_id}/revoke",
    operation_id="revokeDevice",
    openapi_extra=needs(Scope.DEVICES_ADMIN),
    summary="Revoke a device",
    responses=problems(404, 422),
)
async def revoke_device(client_id: ClientId, devices: Devices, caller: Caller) -> models.EnrolledDevice:
    """Drop all that it sends, send it nothing, end its uploads, remove its account, and clear what it retained.

    Its key is refused under every name from now on. A URL that it has stays valid until it expires.
    """
    (shown,) = await _shown(devices, await devices.revoke(caller, client_id))
    return shown


@router.post(
    "/devices/{client_id}/accept-key",
    operation_id="acceptDeviceKey",
    openapi_extra=needs(Scope.DEVICES_ADMIN),
    summary="Accept the other key of a device",
    responses=problems(400, 404, 409, 415, 422),
)
async def accept_device_key(
    client_id: ClientId, devices: Devices, caller: Caller, body: models.AcceptBody
) -> models.EnrolledDevice:
    """Pin the key that raised the alarm. The former key is refused from now on, under every name."""
    (shown,) = await _shown(devices, await devices.accept_key(caller, client_id, body.fingerprint))
    return shown


@router.delete(
    "/devices/{client_id}",
    operation_id="forgetDevice",
    openapi_extra=needs(Scope.DEVICES_ADMIN),
    summary="Forget a revoked device",
    status_code=204,
    responses=problems(404, 409, 422),
)
async def forget_device(client_id: ClientId, devices: Devices, caller: Caller, how: ForgetQuery) -> None:
    """Delete a revoked device from the registry. Its key stays refused, and if it has signed, so does its name.

    With `unsigned` the name may speak unsigned again, also when the device was forgotten before.
    """
    await devices.forget(caller, client_id, unsigned=how.unsigned)


@router.get(
    "/enrollments",
    operation_id="listEnrollments",
    openapi_extra=needs(Scope.DEVICES_ADMIN),
    summary="List devices that ask to be enrolled",
    responses=problems(404),
)
async def list_enrollments(requests: Requests, caller: Caller) -> models.WaitingList:
    """Devices that show a code and are neither approved nor rejected."""
    return models.WaitingList(requests=[models.WaitingDocument.of(one) for one in await requests.waiting(caller)])


@router.post(
    "/enrollments/{user_code}/approve",
    operation_id="approveEnrollment",
    openapi_extra=needs(Scope.DEVICES_ADMIN),
    summary="Enrol the device that shows a code",
    responses=problems(400, 404, 409, 415, 422),
)
async def approve_enrollment(
    user_code: UserCode, requests: Requests, caller: Caller, body: models.NamedDevice
) -> models.EnrolledDevice:
    """The device fetches its bundle, which only it can open. Compare the fingerprint with its screen before."""
    device = await requests.approve(caller, user_code, body.fingerprint, body.of(body.client_id))
    return models.EnrolledDevice.of(device)


@router.post(
    "/enrollments/{user_code}/reject",
    operation_id="rejectEnrollment",
    openapi_extra=needs(Scope.DEVICES_ADMIN),
    summary="Reject the device that shows a code",
    status_code=204,
    responses=problems(404, 422),
)
async def reject_enrollment(user_code: UserCode, requests: Requests, caller: Caller) -> None:
    """The device gets the answer to a code that has expired."""
    await requests.reject(caller, user_code)


@router.post(
    "/batches",
    operation_id="createBatch",
    openapi_extra=needs(Scope.DEVICES_ADMIN),
    summary="Make a batch of devices",
    status_code=201,
    responses=problems(400, 404, 415, 422),
)
async def create_batch(
    response: Response, requests: Requests, caller: Caller, body: models.BatchBody
) -> models.NewBatchDocument:
    """One token for many devices of one image, which is shown in this answer only."""
    batch, token = await requests.batches.create(caller, body.batch)
    _secret(response)
    return models.NewBatchDocument.made(batch, token)


@router.get(
    "/batches",
    operation_id="listBatches",
    openapi_extra=needs(Scope.DEVICES_ADMIN),
    summary="List batches of devices",
    responses=problems(404),
)
async def list_batches(requests: Requests, caller: Caller) -> models.BatchList:
    """Batches with how many of their names were given."""
    found = await requests.batches.batches(caller)
    return models.BatchList(batches=[models.BatchDocument.of(batch, taken) for batch, taken in found])


@router.post(
    "/batches/{batch_id}/revoke",
    operation_id="revokeBatch",
    openapi_extra=needs(Scope.DEVICES_ADMIN),
    summary="Revoke the token of a batch",
    status_code=204,
    responses=problems(404, 422),
)
async def revoke_batch(batch_id: BatchId, requests: Requests, caller: Caller) -> None:
    """Take its token no more. Devices that have joined stay."""
    await requests.batches.revoke(caller, batch_id)


@router.post(
    ENROLL_PATH,
    operation_id="askToEnroll",
    openapi_extra=needs(),
    summary="Ask to be enrolled (a device)",
    responses=problems(400, 404, 409, 415, 422, 429),
)
async def ask_to_enroll(request: Request, requests: Requests, body: models.AskBody) -> models.AskDocument:
    """A device without an account shows `user_code`, and waits for an operator. It needs no token of a caller.

    With the token of a batch it has a name at once, and if the batch says so its bundle without an operator.
    """
    address = getattr(request.state, "address", None) or ""
    asked = EnrollRequest(body.key, body.seal_to, body.nonce, body.signature, body.token, body.serial)
    answer = await requests.begin(asked, address)
    return models.AskDocument(
        device_code=answer.device_code,
        user_code=answer.user_code,
        interval=answer.interval,
        expires_in=answer.expires_in,
    )


@router.post(
    f"{ENROLL_PATH}/poll",
    operation_id="pollEnrollment",
    openapi_extra=needs(),
    summary="Ask for the bundle (a device)",
    responses=problems(400, 404, 415, 422, 429),
)
async def poll_enrollment(
    request: Request, response: Response, requests: Requests, body: models.PollBody
) -> models.PollDocument:
    """Null until an operator approved the device; then the bundle, sealed to the key of the request.

    A poll before the interval has passed is answered 429, and makes the interval 5 s longer.
    """
    address = getattr(request.state, "address", None) or ""
    answer = await requests.poll(PollRequest(body.device_code, body.sequence, body.signature), address)
    _secret(response)
    return models.PollDocument(interval=answer.interval, sealed=answer.sealed)
