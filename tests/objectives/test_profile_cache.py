"""Profiles that are kept: given back as they were, and every fault of the files."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parefront.errors import StorageError
from parefront.objectives.targets.fingerprint import fingerprint_id
from parefront.objectives.targets.profile_cache import (
    load_profile,
    profile_path,
    profiled_multiple,
    save_profile,
)
from tests import profiles
from tests.profiles import cliff, points


def spoil(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class TestCache:
    def test_gives_back_what_was_kept(self, tmp_path: Path) -> None:
        home = tmp_path / "home"
        assert load_profile(home, profiles.FACTS) is None
        assert profiled_multiple(home, profiles.FACTS) is None
        profile = profiles.profile()
        path = save_profile(home, profile)
        assert path == home / "profiles" / f"{fingerprint_id(profiles.FACTS)}.json"
        assert load_profile(home, profiles.FACTS) == profile
        assert profiled_multiple(home, profiles.FACTS) == 16
        assert load_profile(home, profiles.FACTS | {"threads": 2}) is None
        save_profile(home, profiles.profile({"conv": points(cliff(4))}))
        assert profiled_multiple(home, profiles.FACTS) == 4
        assert list(path.parent.iterdir()) == [path]

    def test_a_damaged_file_is_told_from_a_missing_one(self, tmp_path: Path) -> None:
        path = save_profile(tmp_path, profiles.profile())
        whole = path.read_bytes()
        for length in range(0, len(whole) - 2, 97):
            path.write_bytes(whole[:length])
            with pytest.raises(StorageError, match="measures it again"):
                load_profile(tmp_path, profiles.FACTS)
        for content in (b"\xff\xfe\x00", b"null", b"[]", b'{"version": 1}', b" " * 2_000_000):
            path.write_bytes(content)
            with pytest.raises(StorageError, match="profile"):
                load_profile(tmp_path, profiles.FACTS)
            assert profiled_multiple(tmp_path, profiles.FACTS) is None

    def test_another_version_is_not_read(self, tmp_path: Path) -> None:
        spoil(save_profile(tmp_path, profiles.profile()), version=2)
        with pytest.raises(StorageError, match=r"no profile of this version \(version: "):
            load_profile(tmp_path, profiles.FACTS)

    def test_the_profile_of_another_device_is_not_taken(self, tmp_path: Path) -> None:
        other = profiles.profile(facts={"cpu": "another"})
        save_profile(tmp_path, other).rename(profile_path(tmp_path, profiles.FACTS))
        with pytest.raises(StorageError, match=f"got that of {other.fingerprint_id}"):
            load_profile(tmp_path, profiles.FACTS)
        spoil(profile_path(tmp_path, profiles.FACTS), fingerprint=profiles.FACTS)
        with pytest.raises(StorageError, match="expected the id"):
            load_profile(tmp_path, profiles.FACTS)

    def test_a_folder_in_its_place_is_an_error(self, tmp_path: Path) -> None:
        profile_path(tmp_path, profiles.FACTS).mkdir(parents=True)
        with pytest.raises(StorageError, match="cannot read the profile"):
            load_profile(tmp_path, profiles.FACTS)
        with pytest.raises(StorageError, match="cannot write the profile"):
            save_profile(tmp_path, profiles.profile())
        assert [entry.name for entry in (tmp_path / "profiles").iterdir()] == [
            f"{fingerprint_id(profiles.FACTS)}.json"
        ]

    def test_a_home_that_cannot_be_made_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="cannot write the profile"):
            save_profile(tmp_path / "file", profiles.profile())

    @pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError(28, "No space left on device")])
    def test_a_write_that_is_cut_short_leaves_the_old_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any
    ) -> None:
        path = save_profile(tmp_path, profiles.profile())

        def cut(source: Path, target: Path) -> Path:
            assert source.parent == target.parent  # a rename is atomic within a folder only
            raise fault

        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", cut)
            with pytest.raises((KeyboardInterrupt, StorageError)):
                save_profile(tmp_path, profiles.profile({"conv": points(cliff(4))}))
        assert list(path.parent.iterdir()) == [path]
        assert profiled_multiple(tmp_path, profiles.FACTS) == 16

    @given(
        st.dictionaries(
            st.text(max_size=8),
            st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5)
            | st.lists(st.text(max_size=3), max_size=3),
            max_size=4,
        )
    )  # fmt: skip
    def test_any_fingerprint_survives(self, facts: dict[str, object]) -> None:
        profile = profiles.profile(facts=facts)
        with tempfile.TemporaryDirectory() as home:
            save_profile(Path(home), profile)
            assert load_profile(Path(home), facts) == profile
