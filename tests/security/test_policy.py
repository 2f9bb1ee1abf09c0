"""A device with a policy: what its owner denies is neither read nor listed, by any spelling of its path.

Rule: each attack first shows that the same file is read without the rule.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agent.command_line.explain import explain
from device_agent.errors import FileRefused, HostNotAllowed
from device_agent.files.listing import list_files
from device_agent.files.roots import Roots
from device_agent.files.selecting import choose_files
from device_agent.files.source import open_source
from device_agent.policy.document import PathClass, PolicyDocument
from device_agent.policy.rules import DEFAULT_DENIES, DevicePolicy, RefusedByPolicy
from device_agent.storage.url_policy import UploadHosts
from schemas.messages import ListFiles, SelectFiles
from schemas.values import ErrorCode


def policy(**keys: object) -> DevicePolicy:
    return DevicePolicy(PolicyDocument(**keys))  # type: ignore[arg-type]


def rule_against(path: Path | str, roots: Roots) -> str | None:
    """The rule of the policy that refuses to open a path; None when it is opened."""
    try:
        open_source(str(path), roots).close()
    except RefusedByPolicy as refused:
        return refused.rule
    return None


def shown(folder: Path, roots: Roots) -> set[str]:
    """Names that a listing and a selection show, which must be the same."""
    listed = {entry.path for entry in list_files(ListFiles(f"{folder}/**", 500), roots).files}
    chosen = choose_files(SelectFiles("job", (f"{folder}/**",)), roots, now_ns=0, stopped=lambda: False)
    assert {entry.path for entry in chosen.entries()} == listed
    return {os.path.relpath(path, folder) for path in listed}


def make(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        (".ssh/id_ed25519", "deny '.ssh'"),
        ("a/.SSH/b/c", "deny '.ssh'"),
        ("server.key", "deny '*.key'"),
        ("a/SERVER.Key", "deny '*.key'"),
        ("server.key/file", "deny '*.key'"),
        (".netrc", "deny '.netrc'"),
        ("a.csv", None),
        ("key", None),
        ("ssh/a", None),
    ],
)
def test_keys_and_passwords_are_denied_without_a_policy_file(tmp_path: Path, name: str, rule: str | None) -> None:
    make(tmp_path, [name])
    assert rule_against(tmp_path / name, Roots((str(tmp_path),))) == rule
    assert shown(tmp_path, Roots((str(tmp_path),), policy=policy(default_denies=False))) <= {name}
    assert rule_against(tmp_path / name, Roots((str(tmp_path),), policy=policy(default_denies=False))) is None


def test_what_is_denied_is_not_listed_and_the_rest_is(tmp_path: Path) -> None:
    make(tmp_path, ["a.csv", "b.key", "c/d.csv", "c/private/e.csv", "c/PRIVATE.csv", "f/x/y.csv", "f/z.csv"])
    roots = Roots((str(tmp_path),), policy=policy(deny=("private", f"{tmp_path}/f/*/y.csv")))
    assert shown(tmp_path, roots) == {"a.csv", "c/d.csv", "c/PRIVATE.csv", "f/z.csv"}
    assert rule_against(tmp_path / "f/x/y.csv", roots) == f"deny '{tmp_path}/f/*/y.csv'"


def test_no_denied_name_is_the_cursor_of_a_page_that_was_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_agent.files.listing.MAX_EXAMINED", 4)
    make(tmp_path, [f"{number}{end}" for number in range(9) for end in (".csv", ".key", "/private", "/x")])
    rules = policy(deny=("private",), roots=tuple(f"{tmp_path}/{number}" for number in range(9)))
    roots, cursor, cursors = Roots((str(tmp_path),), policy=rules), None, []
    for _ in range(100):
        page = list_files(ListFiles(f"{tmp_path}/**", 500, cursor), roots)
        cursor = page.cursor
        if cursor is None:
            break
        cursors.append(os.path.relpath(cursor, tmp_path))
    assert 2 < len(cursors) < 50
    assert [one for one in cursors if one.endswith((".key", "private", ".csv"))] == []


@pytest.mark.parametrize("kind", ["root", "file", "type"])
def test_a_link_of_a_setting_into_a_denied_folder_is_denied(tmp_path: Path, kind: str) -> None:
    """The path that was requested has no denied name; the folder that it leads to has one."""
    make(tmp_path, [".ssh/id"])
    (tmp_path / "keys").symlink_to(tmp_path / ".ssh")
    path = f"{tmp_path}/keys/id"
    kinds = {
        "root": lambda rules: Roots((f"{tmp_path}/keys",), policy=rules),
        "file": lambda rules: Roots(exact=path, policy=rules),
        "type": lambda rules: Roots(types={"logs": (f"{tmp_path}/keys/*",)}, policy=rules),
    }
    open_source(path, kinds[kind](policy(default_denies=False))).close()
    assert rule_against(path, kinds[kind](policy())) == "deny '.ssh'"
    if kind == "root":
        assert list_files(ListFiles(f"{tmp_path}/keys/*"), kinds[kind](policy())).files == ()


def test_a_changed_link_of_the_exact_file_is_checked_anew(tmp_path: Path) -> None:
    make(tmp_path, ["a.csv", "b.key", "camera/c"])
    link = tmp_path / "latest"
    link.symlink_to("a.csv")
    classes = {"camera": PathClass(paths=(f"{tmp_path}/camera",), consent="ask")}
    roots = Roots((str(tmp_path),), str(link), policy=policy(classes=classes))
    open_source(str(link), roots).close()
    for target, rule in (("b.key", "deny '*.key'"), ("camera/c", "consent ask for camera")):
        link.unlink()
        link.symlink_to(target)
        assert rule_against(link, roots) == rule
    assert roots.asks_for(f"{tmp_path}/camera/c") == "camera"


def test_the_roots_of_the_policy_narrow_those_of_the_settings(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make(data, ["open/a", "open/sub/b", "other/c", "opened/d"])
    (tmp_path / "outside").mkdir()
    make(tmp_path, ["outside/e"])
    (data / "open" / "link").symlink_to(tmp_path / "outside")
    roots = Roots((str(data),), f"{data}/other/c", policy=policy(roots=(f"{data}/open",)))
    assert shown(data, roots) == {"open/a", "open/sub/b"}
    assert rule_against(data / "open" / "a", roots) is None
    for name in ("other/c", "opened/d"):
        assert rule_against(data / name, roots) == f"roots {data}/open"
    # The settings must allow it as well: the policy gives nothing.
    with pytest.raises(FileRefused, match="ALLOWED_ROOTS"):
        open_source(f"{tmp_path}/outside/e", Roots((str(data),), policy=policy(roots=(str(tmp_path),))))


def test_a_root_of_the_policy_that_is_a_file_allows_this_file(tmp_path: Path) -> None:
    """It was listed, and then refused when it was to be sent."""
    make(tmp_path, ["data/a", "data/ab", "data/b"])
    roots = Roots((str(tmp_path),), policy=policy(roots=(f"{tmp_path}/data/a",)))
    assert shown(tmp_path, roots) == {"data/a"}
    assert rule_against(tmp_path / "data" / "a", roots) is None
    for name in ("data/ab", "data/b"):
        assert rule_against(tmp_path / name, roots) == f"roots {tmp_path}/data/a"


def test_a_root_of_the_settings_that_is_a_link_out_of_the_policys_roots_is_refused(tmp_path: Path) -> None:
    make(tmp_path, ["secret/a", "data/b"])
    (tmp_path / "data" / "in").symlink_to(tmp_path / "secret")
    roots = Roots((f"{tmp_path}/data/in",), policy=policy(roots=(f"{tmp_path}/data",)))
    assert rule_against(f"{tmp_path}/data/in/a", roots) == f"roots {tmp_path}/data"
    assert list_files(ListFiles(f"{tmp_path}/data/in/*"), roots).files == ()
    # A link of the policy's own is meant.
    (tmp_path / "way").symlink_to(tmp_path / "data")
    through = Roots((f"{tmp_path}/way",), policy=policy(roots=(f"{tmp_path}/way",)))
    assert rule_against(f"{tmp_path}/way/b", through) is None


def test_size_owner_and_a_second_name_are_rules_about_the_opened_file(tmp_path: Path) -> None:
    make(tmp_path, ["a", "b"])
    (tmp_path / "b").write_bytes(b"12345")
    os.link(tmp_path / "a", tmp_path / "c")
    owner = (tmp_path / "a").stat().st_uid
    rules = {
        "max_file_size 4": (policy(max_file_size=4), {"b"}),
        "hard_links refuse": (policy(hard_links="refuse"), {"a", "c"}),
        f"owners {owner + 1}": (policy(owners=(owner + 1,)), {"a", "b", "c"}),
        f"owners {owner}": (policy(owners=(owner,)), set()),
    }
    for rule, (device, refused) in rules.items():
        roots = Roots((str(tmp_path),), policy=device)
        assert shown(tmp_path, roots) == {"a", "b", "c"} - refused
        for name in ("a", "b", "c"):
            assert rule_against(tmp_path / name, roots) == (rule if name in refused else None)
    with pytest.raises(RefusedByPolicy) as refusal:
        open_source(f"{tmp_path}/b", Roots((str(tmp_path),), policy=policy(max_file_size=4)))
    assert refusal.value.code is ErrorCode.FILE_TOO_LARGE


def test_a_hard_link_to_a_denied_file_is_refused_where_hard_links_are(tmp_path: Path) -> None:
    """A pattern knows names only; another name of the same file is stopped by the other rule."""
    make(tmp_path, ["server.key"])
    os.link(tmp_path / "server.key", tmp_path / "innocent.csv")
    assert rule_against(tmp_path / "innocent.csv", Roots((str(tmp_path),))) is None
    roots = Roots((str(tmp_path),), policy=policy(hard_links="refuse"))
    assert rule_against(tmp_path / "innocent.csv", roots) == "hard_links refuse"


def test_the_hosts_of_the_policy_narrow_those_of_the_settings() -> None:
    both = UploadHosts.parse(["https://s3.example.com", "https://evil.example.com"])
    narrowed = both.narrowed(["https://s3.example.com/bucket/"], "/etc/backhaul/policy.toml")
    assert narrowed.allowed("https://s3.example.com/bucket/key?x=1").host == "s3.example.com"
    for url in ("https://s3.example.com/other/key", "https://evil.example.com/bucket/key"):
        both.allowed(url)
        with pytest.raises(HostNotAllowed, match=r"hosts in /etc/backhaul/policy\.toml"):
            narrowed.allowed(url)
    # The settings must allow it as well.
    with pytest.raises(HostNotAllowed, match="UPLOAD_HOSTS"):
        UploadHosts.parse(["https://a.example.com"]).narrowed(["https://b.example.com"], "p").allowed(
            "https://b.example.com/x"
        )
    with pytest.raises(HostNotAllowed):
        both.narrowed([], "p").allowed("https://s3.example.com/bucket/key")


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"deny": ("priv*",)}, "may not be uploaded: deny in /p.toml"),
        ({"roots": ("/srv/secret",)}, "may not be uploaded: roots in /p.toml"),
        ({"owners": (54321,)}, "owners in /p.toml"),
        ({"max_file_size": 0}, "has 1 bytes: max_file_size in /p.toml"),
    ],
)
def test_a_refusal_that_leaves_the_device_has_no_value_of_a_rule(
    tmp_path: Path, keys: dict[str, object], text: str
) -> None:
    """As in the presence: a value may show what is to be hidden."""
    make(tmp_path, ["private"])
    rules = DevicePolicy(PolicyDocument(**keys), Path("/p.toml"))  # type: ignore[arg-type]
    with pytest.raises(RefusedByPolicy) as refused:
        open_source(f"{tmp_path}/private", Roots((str(tmp_path),), policy=rules))
    assert refused.value.text.endswith(text)
    for value in ("priv*", "/srv/secret", "54321"):
        assert value not in refused.value.text


@pytest.mark.parametrize(
    ("keys", "name", "rule", "remedy"),
    [
        ({}, "server.key", "deny '*.key'", "default_denies = false in /etc/backhaul/policy.toml"),
        ({"deny": ("private",)}, "private/a", "deny 'private'", "change deny in /etc/backhaul/policy.toml"),
        ({"max_file_size": 0}, "a.csv", "max_file_size 0", "change max_file_size"),
        ({"roots": ("/srv",)}, "a.csv", "roots /srv", "change roots"),
    ],
)
def test_explain_names_the_rule_of_the_policy(
    tmp_path: Path, keys: dict[str, object], name: str, rule: str, remedy: str
) -> None:
    make(tmp_path, [name])
    found = explain(f"{tmp_path}/{name}", Roots((str(tmp_path),), policy=policy(**keys)), "till")
    assert (found.allowed, found.policy, found.rule) == (False, rule, f"ALLOWED_ROOTS {tmp_path}")
    assert remedy in (found.remedy or "")


# A grammar of paths: only what lies in the root and is not denied is opened.

_NAMES = st.sampled_from(
    ["root", "folder", "file", "a.key", "A.KEY", ".ssh", ".SSH", "link", "outside", "secret", "..", ".", "", "*", "%2e"]
)
_ODD = st.text(st.characters(codec="utf-8"), max_size=4)
_PATHS = st.lists(st.one_of(_NAMES, _NAMES, _ODD), min_size=1, max_size=7)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with everything that a path could use to get out of it, or at what is denied."""
    top = tmp_path_factory.mktemp("grammar")
    make(top, ["root/file", "root/folder/file", "root/a.key", "root/.ssh/file", "root/folder/.SSH/secret"])
    make(top, ["outside/secret", "outside/file"])
    for place in ("root", "root/folder"):
        (top / place / "link").symlink_to(top / "outside")
        (top / place / "secret").symlink_to(top / "outside" / "secret")
    return top


@pytest.mark.usefixtures("way")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(components=_PATHS, prefix=st.sampled_from(["", "/root", "/root/folder", "/root/link", "/outside"]))
def test_no_path_of_the_grammar_opens_a_file_outside_or_one_that_is_denied(
    tree: Path, components: list[str], prefix: str
) -> None:
    path = f"{tree}{prefix}/{'/'.join(components)}"
    roots = Roots((f"{tree}/root",))
    try:
        with open_source(path, roots) as source:
            opened = os.fspath(Path(f"/proc/self/fd/{source._descriptor}").readlink())
    except FileRefused:
        return
    assert opened == path
    inside = Path(opened).relative_to(tree / "root")
    denied = {name.casefold() for name in inside.parts}
    assert ".ssh" not in denied
    assert not any(name.endswith(".key") for name in denied)


def test_every_default_pattern_denies_what_it_names() -> None:
    paths = [
        one.replace("*", "x") if one.startswith("/") else f"/data/{one.replace('*', 'x')}" for one in DEFAULT_DENIES
    ]
    assert all(map(policy().denies.covers, paths))


_RACED = """
import os, sys, time
from device_agent.errors import FileRefused, HostNotAllowed, PutFailed
from device_agent.files.listing import list_files
from device_agent.files.roots import Roots
from device_agent.files.source import open_source
from device_agent.reach.upload_link import UploadWay
from device_agent.storage.uploader import Uploader
from device_agent.storage.url_policy import UploadHosts
from schemas.messages import ListFiles
from schemas.parts import Part
from schemas.values import PresignedPart

root, allowed, refused = sys.argv[1:]
roots = Roots((root,))
uploader = Uploader(UploadHosts.parse([allowed]), UploadWay(), throttle=None)
counts = {"opened": 0, "refused": 0}
until = time.monotonic() + 60
while min(counts.values()) < 5 and time.monotonic() < until:
    try:
        with open_source(f"{root}/folder/file", roots) as source:
            counts["opened"] += 1
            for url in (allowed, refused):
                try:
                    part = PresignedPart(1, f"{url}/key?X-Amz-Signature=s", {})
                    uploader.put(part, source, Part(1, 0, source.size), stopped=lambda: False, on_bytes=lambda n: None)
                except PutFailed:
                    pass
    except FileRefused:
        counts["refused"] += 1
    list_files(ListFiles(f"{root}/**"), roots)
print(counts["opened"], counts["refused"])
"""

_RACER = """
import os, sys
root, outside = sys.argv[1:]
folder, aside = f"{root}/folder", f"{root}/aside"
print("swapping", flush=True)
while True:
    os.rename(folder, aside)
    os.symlink(outside, folder)
    os.unlink(folder)
    os.rename(aside, folder)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.timeout(180)
def test_under_strace_no_file_outside_is_opened_and_no_other_host_is_connected_while_links_are_swapped(
    tmp_path: Path,
) -> None:
    """The kernel's own record of every open and connect of the process, not what the agent reports."""
    root, outside, trace = tmp_path / "root", tmp_path / "outside", tmp_path / "trace"
    make(tmp_path, ["root/folder/file", "outside/file"])
    listed = "openat,openat2,open,connect"
    # Nothing listens at either port: a connection that is tried shows in the trace all the same.
    allowed, refused = "http://127.0.0.1:9", "http://127.0.0.2:9"
    racer = subprocess.Popen([sys.executable, "-c", _RACER, str(root), str(outside)], stdout=subprocess.PIPE)
    try:
        assert racer.stdout is not None
        assert racer.stdout.readline() == b"swapping\n"
        command = ["strace", "-f", "--seccomp-bpf", "-y", "-qq", "-e", f"trace={listed}", "-o", str(trace)]
        script = [sys.executable, "-c", _RACED, str(root), allowed, refused]
        done = subprocess.run([*command, *script], capture_output=True, text=True, timeout=150, check=False)
    finally:
        racer.kill()
        racer.communicate()
    if "ptrace" in done.stderr.lower():
        pytest.skip("this system allows no strace")
    assert done.returncode == 0, done.stderr
    opened, denied = map(int, done.stdout.split())
    assert opened > 0
    assert denied > 0
    lines = trace.read_text(errors="replace").splitlines()
    returned = [line.rpartition(" = ")[2] for line in lines if "open" in line.partition("(")[0]]
    assert any(f"<{root}/folder/file>" in one for one in returned)
    assert [one for one in returned if f"<{outside}" in one] == []
    connects = [line for line in lines if "connect(" in line and "sin_addr" in line]
    assert any("127.0.0.1" in line for line in connects)
    assert [line for line in connects if "127.0.0.1" not in line] == []
