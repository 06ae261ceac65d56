"""The test suite that every study must pass."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC
from pathlib import Path

import pytest

from symtorch_core.errors import SearchError
from symtorch_core.events.records import Event, StageFinished, StageStarted
from symtorch_core.studies.study import Study, StudyReport


class StudyContract(ABC):  # noqa: B024 - the fixture that a subclass gives is pytest's business
    """Tests of a study: subclass it, define a fixture ``study`` with its smallest settings, and run pytest.

    class TestMine(StudyContract):
        @pytest.fixture(scope="class")
        @classmethod
        def study(cls):
            return MyStudy(scale="tiny")
    """

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("study")

    @pytest.fixture(scope="class")
    @classmethod
    def events(cls) -> list[Event]:
        return []

    @pytest.fixture(scope="class")
    @classmethod
    def report(cls, study: Study, folder: Path, events: list[Event]) -> StudyReport:
        return study.run(folder, [events.append])

    def test_options_are_declared_with_their_help(self, study: Study) -> None:
        assert dataclasses.is_dataclass(study)
        assert type(study).__doc__
        for entry in dataclasses.fields(study):
            assert entry.metadata.get("help"), f"describe {entry.name} with setting(...)"
        options = {name: getattr(study, name) for name in study.option_names()}
        assert type(study).with_options(options) == study
        with pytest.raises(SearchError, match="no_such_option"):
            type(study).with_options({"no_such_option": 1})

    def test_presets_are_settings_of_its_own(self, study: Study) -> None:
        for name in study.presets:
            assert type(study).with_preset(name, {}).option_names() == study.option_names()
        with pytest.raises(SearchError, match="no_such_preset"):
            type(study).with_preset("no_such_preset", {})

    def test_it_reports_its_stages(self, report: StudyReport, events: list[Event]) -> None:
        started = [event.stage for event in events if isinstance(event, StageStarted)]
        finished = [event.stage for event in events if isinstance(event, StageFinished)]
        assert started
        assert sorted(started) == sorted(finished)

    def test_it_reports_figures_and_claims(self, study: Study, report: StudyReport) -> None:
        assert report.name == type(study).name
        assert report.title
        assert report.claims
        assert report.tables
        assert all(claim.text and claim.reached for claim in report.claims)

    def test_its_report_is_written_completely(self, report: StudyReport, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        page = report.write(tmp_path)
        assert report.title in page.read_text(encoding="utf-8")
        for stem in report.tables:
            assert len(tmp_path.joinpath(f"{stem}.csv").read_text(encoding="utf-8").splitlines()) > 1
        for stem in report.drawings:
            assert tmp_path.joinpath(f"{stem}.png").stat().st_size > 1_000
        written = json.loads(tmp_path.joinpath("figures.json").read_text(encoding="utf-8"))
        assert [claim["reached"] for claim in written["claims"]] == [claim.reached for claim in report.claims]

    def test_a_second_run_continues_the_first(self, study: Study, folder: Path, report: StudyReport) -> None:
        again = study.run(folder)
        assert [claim.reached for claim in again.claims] == [claim.reached for claim in report.claims]
