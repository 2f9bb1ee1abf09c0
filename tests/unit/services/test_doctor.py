"""The findings of the doctor, and the one that it repairs."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.services.diagnosis.findings import Finding
from control_plane.services.diagnosis.store import StoreDoctor
from control_plane.services.errors import ObjectStoreForbids, ObjectStoreRefused
from control_plane.services.lifecycle_rule import RULE_ID, aborts_too_early, with_our_rule
from control_plane.services.ports.object_store import ObjectStoreCapabilities
from tests.support.fakes import FakeObjects, Rig

PREFIX = "uploads/"
OTHERS = {
    "ID": "archive",
    "Status": "Enabled",
    "Filter": {"Prefix": "reports/"},
    "Transitions": [{"Days": 30, "StorageClass": "GLACIER"}],
}


def doctor_of(rig: Rig) -> StoreDoctor:
    """The doctor of a rig."""
    return StoreDoctor(rig.objects, rig.clock, rig.policy, database=rig.database)


def named(findings: list[Finding], name: str) -> Finding:
    """The one finding of this name."""
    (finding,) = [one for one in findings if one.name == name]
    return finding


async def test_a_missing_lifecycle_rule_is_found_and_added_beside_the_others() -> None:
    """Other rules, and the rest of the configuration, stay as they are."""
    async with Rig() as rig:
        rig.objects.rules = {"Rules": [OTHERS], "TransitionDefaultMinimumObjectSize": "varies_by_storage_class"}
        doctor = doctor_of(rig)
        assert not named(await doctor.examine(), "lifecycle rule").fine
        mended = named(await doctor.examine(fix=True), "lifecycle rule")
        assert (mended.fine, mended.fixed) == (True, True)
        assert rig.objects.rules is not None
        assert rig.objects.rules["Rules"][0] == OTHERS
        assert rig.objects.rules["TransitionDefaultMinimumObjectSize"] == "varies_by_storage_class"
        again = named(await doctor.examine(fix=True), "lifecycle rule")
        assert (again.fine, again.fixed) == (True, False)
        assert rig.objects.calls.count("set_lifecycle") == 1


async def test_a_member_that_the_object_store_adds_does_not_make_the_rule_a_lost_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Amazon S3 shows a default that was not written beside the first rule of a bucket."""
    keep = FakeObjects.set_lifecycle

    async def add_default(objects: FakeObjects, configuration: Mapping[str, Any]) -> None:
        await keep(objects, {"TransitionDefaultMinimumObjectSize": "all_storage_classes_128K", **configuration})

    monkeypatch.setattr(FakeObjects, "set_lifecycle", add_default)
    async with Rig() as rig:
        rig.objects.rules = {"Rules": []}
        mended = named(await doctor_of(rig).examine(fix=True), "lifecycle rule")
        assert (mended.fine, mended.fixed) == (True, True)


async def test_an_object_store_that_does_not_keep_the_rule_is_not_reported_as_repaired() -> None:
    """It accepts the call and stores nothing."""
    async with Rig() as rig:
        rig.objects.keeps_rules = False
        assert "did not keep" in named(await doctor_of(rig).examine(fix=True), "lifecycle rule").text


@pytest.mark.parametrize(
    ("prefix", "days", "found"), [("", 7, "x"), ("uploads/eu/", 7, "x"), ("other/", 7, None), ("", 31, None)]
)
def test_a_rule_that_aborts_open_uploads_is_named(prefix: str, days: int, found: str | None) -> None:
    """An upload may live thirty days."""
    rule = {
        "ID": "x",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": days},
    }
    assert aborts_too_early({"Rules": [rule]}, PREFIX) == found


async def test_multipart_uploads_of_unknown_origin_are_reported_with_their_size() -> None:
    """They are not aborted."""
    async with Rig() as rig:
        await rig.granted()
        rig.objects.multipart["theirs"] = ("uploads/somebody/else", "t")
        rig.objects.sizes["theirs"] = 4096
        rig.clock.time += 4000
        finding = named(await doctor_of(rig).examine(fix=True), "multipart uploads")
        assert not finding.fine
        assert "1 of unknown origin hold 4096 bytes" in finding.text
        assert "theirs" in rig.objects.multipart


async def test_an_unreachable_or_misconfigured_neighbour_is_a_finding() -> None:
    """One sentence each, and no exception."""
    async with Rig() as rig:
        rig.objects.fails = {"probe": [ObjectStoreRefused("check AWS_SECRET_ACCESS_KEY")]}
        findings = await doctor_of(rig).examine()
        assert [(one.name, one.fine) for one in findings] == [("object store", False)]
        rig.objects.capabilities = ObjectStoreCapabilities(clock_skew=-400.0)
        findings = await doctor_of(rig).examine()
        assert not named(findings, "clock").fine
        assert not named(findings, "proof").fine


async def test_a_permission_or_a_feature_that_uploads_do_not_need_is_not_missed() -> None:
    """The kind: a check that asks for more than the work needs."""
    async with Rig() as rig:
        rig.objects.rules = None
        assert named(await doctor_of(rig).examine(fix=True), "lifecycle rule").fine
        rig.objects.fails = {"lifecycle": [ObjectStoreForbids("no", "AccessDenied")]}
        findings = await doctor_of(rig).examine()
        assert named(findings, "lifecycle rule").fine
        assert "not known" in named(findings, "lifecycle rule").text


async def test_a_rule_is_written_in_the_form_that_the_object_store_takes() -> None:
    """The form of the rules that are there; without any, the one that is not refused."""
    old = {"ID": "old", "Status": "Enabled", "Prefix": "reports/", "Expiration": {"Days": 9}}
    async with Rig() as rig:
        rig.objects.rules = {"Rules": [old]}
        assert named(await doctor_of(rig).examine(fix=True), "lifecycle rule").fixed
        assert rig.objects.rules["Rules"][1]["Prefix"] == PREFIX
        rig.objects.rules = {"Rules": []}
        rig.objects.fails = {"set_lifecycle": [ObjectStoreRefused("Filter?", "MalformedXML")]}
        assert named(await doctor_of(rig).examine(fix=True), "lifecycle rule").fixed
        assert "Filter" not in rig.objects.rules["Rules"][0]
        again = named(await doctor_of(rig).examine(), "lifecycle rule")
        assert (again.fine, again.fixed) == (True, False)


@given(st.lists(st.fixed_dictionaries({"ID": st.text(max_size=5), "Status": st.just("Enabled")}), max_size=5))
def test_the_rule_is_added_once(rules: list[dict[str, str]]) -> None:
    """Every other rule stays in its place."""
    once = with_our_rule({"Rules": rules}, PREFIX)
    assert with_our_rule(once, PREFIX) == once
    assert [rule for rule in once["Rules"] if rule["ID"] != RULE_ID] == rules
