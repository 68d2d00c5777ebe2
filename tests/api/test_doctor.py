"""What the doctor says of what it is shown, and of real places: each finding at its level, with what to do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from jidosystem import Agent, InvalidConfig, NotYetAvailable, Platform, action
from jidosystem.api import doctor
from jidosystem.api.doctor import Finding, examine
from jidosystem.core.inspection import StoreFacts

pytestmark = pytest.mark.blocking
SOUND = StoreFacts("SQLite 3", "app.db", exists=True, size_bytes=10_000, version=2, newest=2, damage=())


class Counter(Agent):
    """Counts."""

    value: int = 0

    @action
    async def add(self) -> int:
        self.value += 1
        return self.value


def level(found: Iterable[Finding], check: str) -> str:
    return max((finding.level for finding in found if finding.check == check), key=["ok", "warning", "problem"].index)


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        (doctor.judge_python((3, 11), "CPython"), "ok"),
        (doctor.judge_python((3, 10), "CPython"), "problem"),
        (doctor.judge_python((3, 13), "PyPy"), "warning"),
        (doctor.judge_open_files(256), "warning"),
        (doctor.judge_open_files(1024), "ok"),
        (doctor.judge_open_files(-1), "ok"),
        (doctor.judge_clock(1_800_000_000.0, 1_799_999_999.0), "ok"),
        (doctor.judge_clock(1_800_000_000.0, 1_800_000_030.0), "ok"),
        (doctor.judge_clock(1_800_000_000.0, 1_800_003_600.0), "problem"),
        (doctor.judge_clock(0.0, 0.0), "problem"),
        (doctor.judge_room(10 * 1024**3, 20 * 1024**3), "ok"),
        (doctor.judge_room(500 * 1024**2, 20 * 1024**3), "warning"),
        (doctor.judge_room(0, 20 * 1024**3), "problem"),
        (doctor.judge_file_system("ext4"), "ok"),
        (doctor.judge_file_system("nfs4"), "problem"),
        (doctor.judge_file_system("cifs"), "problem"),
        (doctor.judge_file_system("tmpfs"), "warning"),
        (doctor.judge_file_system("overlay"), "warning"),
        (doctor.judge_version(SOUND), "ok"),
        (doctor.judge_version(SOUND._replace(version=1)), "warning"),
        (doctor.judge_version(SOUND._replace(version=3)), "problem"),
        (doctor.judge_version(SOUND._replace(version=0)), "ok"),
    ],
)
def test_a_fact_has_its_level_and_what_is_not_well_its_advice(finding: Finding, expected: str) -> None:
    assert finding.level == expected
    assert bool(finding.advice) == (expected != "ok")
    assert finding.found


@pytest.mark.parametrize(
    ("facts", "check", "expected"),
    [
        (SOUND, "content", "ok"),
        (SOUND._replace(damage=("the record of Counter/a can't be read",)), "content", "problem"),
        (SOUND._replace(owned=True, owner=7), "owner", "ok"),
        (SOUND._replace(log_bytes=4_000), "log", "warning"),
        (SOUND._replace(trouble="app.db is damaged"), "store", "problem"),
        (StoreFacts("memory", exists=True), "store", "warning"),
        (SOUND._replace(exists=False), "store", "ok"),
        (SOUND._replace(path="no/where/app.db", exists=False), "store", "problem"),
    ],
)
def test_a_store_has_its_findings(facts: StoreFacts, check: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.db").touch()
    assert level(doctor.store(facts), check) == expected


def test_a_log_of_a_running_owner_is_nothing_to_tell() -> None:
    assert [finding.check for finding in doctor.judge_file(SOUND._replace(owned=True, log_bytes=9)) if finding.check == "log"] == []


def test_the_file_system_is_that_of_the_longest_mount_above(tmp_path: Path) -> None:
    (tmp_path / "a b" / "c").mkdir(parents=True)
    mounts = tmp_path / "mounts"
    real = str(tmp_path.resolve())
    mounts.write_text(f"x / ext4 rw 0 0\nserver:/x {real}/a\\040b nfs4 rw 0 0\ny {real}/a xfs rw 0 0\n")
    assert doctor.file_system(tmp_path / "a b" / "c", str(mounts)) == "nfs4"
    assert doctor.file_system(tmp_path, str(mounts)) == "ext4"
    assert doctor.file_system(tmp_path, str(tmp_path / "missing")) == ""
    mounts.write_text("nonsense\n\n")
    assert doctor.file_system(tmp_path, str(mounts)) == ""


@pytest.mark.parametrize(("count", "told"), [(0, "0 bytes"), (999, "999 bytes"), (1_500, "1.5 KB"), (12_345_678, "12 MB"), (5e12, "5.0 TB")])
def test_sizes_are_said_as_people_say_them(count: float, told: str) -> None:
    assert doctor.size(count) == told


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "ok"),
        ("[agents]\ndefault_timeout = 3\n", "ok"),
        ("[agents]\ndefault_timeout = -1\n", "problem"),
        ("[agents", "problem"),
        ("\0", "problem"),
    ],
)
def test_settings_are_read_as_a_platform_reads_them(tmp_path: Path, content: str | None, expected: str) -> None:
    file = tmp_path / "jido.toml"
    if content is not None:
        file.write_text(content)
    finding = doctor.settings("memory://", str(file))
    assert finding.level == expected
    if expected == "problem":
        assert str(file) in finding.found


async def test_a_whole_examination_changes_nothing(tmp_path: Path) -> None:
    async with Platform(f"sqlite:///{tmp_path}/app.db") as platform:
        await platform.agent(Counter, "a").add()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    found = list(examine(f"sqlite:///{tmp_path}/app.db", config_file=str(tmp_path / "jido.toml")))
    assert level(found, "content") == "ok" and level(found, "clock") == "ok"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    quick = list(examine(f"sqlite:///{tmp_path}/app.db", whole=False))
    assert "content" not in [finding.check for finding in quick]


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidConfig):
        list(examine("app.db"))
    with pytest.raises(NotYetAvailable):
        list(examine("nats://localhost"))
