"""What is done with real files: nothing is deleted that changed since, and no file is replaced.

The racing writers are called between the steps, where a crash test of the real program meets them by chance only.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from device_agent.after import files
from device_agent.after.machine import Phase
from device_agent.after.policy import AfterPolicy
from device_agent.files import renames
from device_agent.files.own_files import OwnFiles
from tests.unit.device_agent.after.sent import CONTENT, Sent


def visible(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_a_file_that_did_not_change_is_deleted(tmp_path: Path) -> None:
    after = Sent(tmp_path).run()
    assert (after.outcome, after.code) == ("deleted", None)
    assert not list(tmp_path.iterdir())


def test_a_file_that_did_not_change_is_moved(tmp_path: Path) -> None:
    (tmp_path / "done").mkdir()
    after = Sent(tmp_path, f"move:{tmp_path}/done").run()
    assert (after.outcome, after.text) == ("moved", f"{tmp_path}/done/a.bin")
    assert visible(tmp_path / "done") == {"a.bin": CONTENT}
    assert not visible(tmp_path)


def test_an_empty_file_is_deleted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.device_agent.after.sent.CONTENT", b"")
    assert Sent(tmp_path).run().outcome == "deleted"


def _append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def _overwrite_with_old_times(path: Path) -> None:
    """The times are those from before: only the content shows it."""
    times = path.stat()
    path.write_bytes(b"M" + path.read_bytes()[1:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("asked", ["delete", "move:"])
@pytest.mark.parametrize("phase", [Phase.HIDE, Phase.WAIT, Phase.CHECK, Phase.END])
@pytest.mark.parametrize("change", [_append, _overwrite_with_old_times])
def test_a_file_that_was_written_at_any_step_is_kept_under_its_name(
    tmp_path: Path, asked: str, phase: Phase, change: Callable[[Path], None]
) -> None:
    (tmp_path / "done").mkdir()
    sent = Sent(tmp_path, asked + f"{tmp_path}/done" * (asked == "move:"))
    sent.before[phase] = lambda: change(sent.path if phase is Phase.HIDE else sent.hidden)
    after = sent.run()
    assert (after.outcome, after.code) == ("kept", "source_changed"), after.text
    assert set(visible(tmp_path)) == {"a.bin"}
    assert visible(tmp_path)["a.bin"] != CONTENT
    assert not visible(tmp_path / "done")


def test_a_log_that_was_rotated_during_the_upload_stays_and_so_does_the_new_one(tmp_path: Path) -> None:
    sent = Sent(tmp_path)
    sent.path.rename(tmp_path / "a.bin.1")
    sent.path.write_bytes(b"a new log")
    assert sent.run().outcome == "kept"
    assert visible(tmp_path) == {"a.bin": b"a new log", "a.bin.1": CONTENT}


def test_a_new_file_with_the_name_of_the_hidden_one_is_not_touched(tmp_path: Path) -> None:
    sent = Sent(tmp_path)
    sent.before[Phase.WAIT] = lambda: sent.path.write_bytes(b"the next one")
    assert sent.run().outcome == "deleted"
    assert visible(tmp_path) == {"a.bin": b"the next one"}


def test_a_changed_file_whose_name_is_taken_is_kept_beside_it_and_that_is_reported(tmp_path: Path) -> None:
    sent = Sent(tmp_path)

    def both() -> None:
        _append(sent.hidden)
        sent.path.write_bytes(b"the next one")

    sent.before[Phase.WAIT] = both
    after = sent.run()
    (beside,) = (name for name in visible(tmp_path) if name != "a.bin")
    assert after.outcome == "kept"
    assert beside in (after.text or "")
    assert visible(tmp_path) == {"a.bin": b"the next one", beside: CONTENT + b"more"}


def test_a_file_swapped_between_the_look_and_the_rename_gets_its_name_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, real = Sent(tmp_path), renames.rename_aside

    def swap(*names: object) -> None:
        (tmp_path / "other").write_bytes(b"another file")
        (tmp_path / "other").replace(sent.path)
        real(*names)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "rename_aside", swap)
    after = sent.run()
    assert (after.outcome, after.code) == ("kept", "source_changed")
    assert visible(tmp_path) == {"a.bin": b"another file"}


def test_another_name_of_the_file_keeps_its_content(tmp_path: Path) -> None:
    sent = Sent(tmp_path)
    (tmp_path / "link.bin").hardlink_to(sent.path)
    assert sent.run().outcome == "deleted"
    assert visible(tmp_path) == {"link.bin": CONTENT}


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    sent = Sent(tmp_path)
    sent.path.rename(tmp_path / "real.bin")
    sent.path.symlink_to("real.bin")
    after = sent.run()
    assert (after.outcome, after.code) == ("kept", "path_not_allowed")
    assert visible(tmp_path)["real.bin"] == CONTENT


def test_a_move_replaces_no_file(tmp_path: Path) -> None:
    done = tmp_path / "done"
    done.mkdir()
    (done / "a.bin").write_bytes(b"an earlier one")
    after = Sent(tmp_path, f"move:{done}").run()
    assert (after.outcome, after.code) == ("kept", "after_not_possible")
    assert "exists" in (after.text or "")
    assert visible(done) == {"a.bin": b"an earlier one"}
    assert visible(tmp_path) == {"a.bin": CONTENT}


@pytest.mark.parametrize("link", [False, True])
def test_a_move_replaces_no_file_that_appears_at_the_last_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, link: bool
) -> None:
    if link:
        monkeypatch.setattr(renames, "_renameat2", lambda: None)
    done = tmp_path / "done"
    done.mkdir()
    sent = Sent(tmp_path, f"move:{done}")
    sent.before[Phase.END] = lambda: (done / "a.bin").write_bytes(b"an earlier one")
    assert sent.run().outcome == "kept"
    assert visible(done) == {"a.bin": b"an earlier one"}
    assert visible(tmp_path) == {"a.bin": CONTENT}


@pytest.mark.parametrize("gone_at", [Phase.HIDE, Phase.END])
def test_a_move_into_a_folder_that_is_missing_keeps_the_file(tmp_path: Path, gone_at: Phase) -> None:
    done = tmp_path / "done"
    done.mkdir()
    sent = Sent(tmp_path, f"move:{done}")
    sent.before[gone_at] = done.rmdir
    after = sent.run()
    assert (after.outcome, after.code) == ("kept", "after_not_possible")
    assert "done" in (after.text or "")
    assert visible(tmp_path) == {"a.bin": CONTENT}


def test_a_move_to_another_file_system_keeps_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "done").mkdir()
    sent, real = Sent(tmp_path, f"move:{tmp_path}/done"), renames.rename_new

    def other_device(folder: int, name: str, to_folder: int, to_name: str) -> None:
        if to_name == "a.bin" and not (tmp_path / "done" / "x").exists():
            (tmp_path / "done" / "x").touch()
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(folder, name, to_folder, to_name)

    monkeypatch.setattr(files, "rename_new", other_device)
    after = sent.run()
    assert (after.outcome, after.code) == ("kept", "after_not_possible")
    assert visible(tmp_path) == {"a.bin": CONTENT}


def test_a_folder_that_may_not_be_written_keeps_the_file_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_names: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(files, "rename_aside", refused)
    after = Sent(tmp_path).run()
    assert (after.outcome, after.code) == ("kept", "permission_denied")
    assert visible(tmp_path) == {"a.bin": CONTENT}


@pytest.mark.parametrize("asked", ["delete", "move:"])
@pytest.mark.parametrize("link", [False, True])
def test_an_agent_that_ends_after_any_step_finishes_after_its_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, asked: str, link: bool
) -> None:
    """The work was done and its event is lost, or not: both ways lead to the one end."""
    if link:
        monkeypatch.setattr(renames, "_renameat2", lambda: None)
    for crash in range(6):
        root = tmp_path / str(crash)
        (root / "done").mkdir(parents=True)
        sent = Sent(root, asked + f"{root}/done" * (asked == "move:"))
        for number in range(40):
            if sent.phase is Phase.REPORT:
                break
            if number == crash:
                if sent.phase is not Phase.WAIT:
                    sent.work()
                sent.restart()
            sent.step()
        expected = "deleted" if asked == "delete" else "moved"
        assert sent.after.outcome == expected, (crash, sent.after.text)
        assert not visible(root)
        assert visible(root / "done") == ({} if asked == "delete" else {"a.bin": CONTENT})


def test_a_crash_between_the_two_names_of_a_linking_rename_leaves_no_second_name(tmp_path: Path) -> None:
    sent = Sent(tmp_path)
    sent.hidden.hardlink_to(sent.path)
    assert sent.run().outcome == "deleted"
    assert not visible(tmp_path)


def test_a_new_inode_number_after_a_reboot_is_no_change(tmp_path: Path) -> None:
    sent = Sent(tmp_path)
    assert sent.after.source is not None
    sent.changed(source=msgspec.structs.replace(sent.after.source, device=77, inode=78, ctime_ns=1))
    assert sent.run().outcome == "deleted"


def test_the_hidden_name_fits_the_longest_name(tmp_path: Path) -> None:
    assert len(files.hidden_name("é" * 127, "u" * 64).encode(errors="surrogateescape")) <= 255
    sent = Sent(tmp_path, name="x" * 255)
    assert sent.run().outcome == "deleted"


def test_a_file_that_takes_the_name_between_two_calls_of_the_hiding_is_not_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file system has no renameat2, hiding is more than one call."""
    sent, real = Sent(tmp_path), os.link
    monkeypatch.setattr(renames, "_renameat2", lambda: None)

    def link_then_swap(*names: str, **folders: int) -> None:
        real(*names, **folders)  # type: ignore[arg-type]
        monkeypatch.setattr(os, "link", real)
        (tmp_path / "other").write_bytes(b"a new file")
        (tmp_path / "other").replace(sent.path)

    monkeypatch.setattr(os, "link", link_then_swap)
    assert sent.run().outcome == "kept"
    assert visible(tmp_path) == {"a.bin": b"a new file"}


def test_a_changed_file_with_a_long_name_is_kept_under_a_visible_name(tmp_path: Path) -> None:
    sent = Sent(tmp_path, name="é" * 125)

    def both() -> None:
        _append(sent.hidden)
        sent.path.write_bytes(b"the next one")

    sent.before[Phase.WAIT] = both
    assert sent.run().outcome == "kept"
    assert not [name for name in visible(tmp_path) if name.startswith(".")]
    assert sorted(visible(tmp_path).values()) == [CONTENT + b"more", b"the next one"]


def test_a_file_that_was_given_back_before_a_crash_is_not_reported_as_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, real = Sent(tmp_path), os.unlink

    def refused(*_names: object, **_folders: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    while sent.phase is not Phase.END:
        sent.step()
    monkeypatch.setattr(os, "unlink", refused)
    sent.work()  # Its event is lost.
    monkeypatch.setattr(os, "unlink", real)
    assert visible(tmp_path) == {"a.bin": CONTENT}
    sent.restart()
    sent.step()
    assert sent.after.outcome is None
    assert sent.run().outcome == "deleted"
    assert not visible(tmp_path)


def test_no_file_is_moved_into_a_folder_of_the_agent(tmp_path: Path) -> None:
    state = tmp_path / "state" / "selections"
    state.mkdir(parents=True)
    sent = Sent(tmp_path, f"move:{state}")
    sent.own = OwnFiles(tmp_path / "state")
    after = sent.run()
    assert (after.outcome, after.code) == ("kept", "path_not_allowed")
    assert visible(tmp_path) == {"a.bin": CONTENT}
    assert not visible(state)


@pytest.mark.parametrize("phase", [Phase.HIDE, Phase.CHECK, Phase.END])
def test_what_the_settings_of_a_later_start_forbid_is_not_done_any_more(tmp_path: Path, phase: Phase) -> None:
    sent = Sent(tmp_path)

    def forbid() -> None:
        sent.policy = AfterPolicy()

    sent.before[phase] = forbid
    after = sent.run()
    assert (after.outcome, after.code) == ("kept", "after_not_allowed")
    assert visible(tmp_path) == {"a.bin": CONTENT}


def test_what_was_done_before_the_settings_forbade_it_is_reported_as_done(tmp_path: Path) -> None:
    sent = Sent(tmp_path)
    while sent.phase is not Phase.END:
        sent.step()
    sent.work()  # Its event is lost.
    sent.policy = AfterPolicy()
    sent.restart()
    assert sent.run().outcome == "deleted"
