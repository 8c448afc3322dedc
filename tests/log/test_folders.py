"""Folders of a sink by name: those that delta-rs can work in ship, and all others are refused in one clear line."""

import pandas as pd
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake

from closedloop.log.folders import unfit
from closedloop.log.sink import Sink, SinkError
from score.settings import Settings, SettingsError

FIT = ["a b", "100%", "100% x", "50%zz", "größe", "a+b", "a&b;c", "$x", "it's", 'a"b', "{a}", "~x", "*", "`id`"]
UNFIT = ["a%20b", "a%2fb", "line #1", "what?", "a[1]", "a]", "a|b", "a^b", "a\\b", "a\tb", "a\nb"]


@pytest.mark.parametrize("name", FIT)
def test_what_is_allowed_can_be_written_read_and_asked_for_its_history(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    assert str(folder) == Sink.at(str(folder), {}).place
    carried = CommitProperties(custom_metadata={"segment": "5"})
    write_deltalake(str(folder / "t"), pd.DataFrame({"x": [1]}), commit_properties=carried)
    table = DeltaTable(str(folder / "t"))
    assert (1, ["5"]) == (len(table.to_pandas()), [commit["segment"] for commit in table.history()])


@pytest.mark.parametrize("name", UNFIT)
def test_what_delta_rs_loses_is_refused_by_commands_and_service(tmp_path, name):
    folder = str(tmp_path / name / "delta")
    with pytest.raises(
        SinkError, match=r"Delta tables cannot lie in a folder with .* in its path; name one"
    ) as refused:
        Sink.at(folder, {})
    assert 1 == len(str(refused.value).splitlines())
    with pytest.raises(SettingsError, match=r"^LOG_SINK=.*Delta tables cannot lie in a folder with"):
        Settings.from_environ({"LOG_DIR": str(tmp_path / "log"), "LOG_SINK": folder, "AUTH": "open"})
    with pytest.raises(SettingsError, match=r"^LOG_SINK is not set, so .*Delta tables cannot lie in a folder with"):
        Settings.from_environ({"LOG_DIR": folder, "AUTH": "open"})
    assert not list(tmp_path.iterdir())


def test_an_address_of_an_object_store_may_hold_an_escape():
    assert unfit("/data/log") is None
    assert "s3://bucket/a%20b" == Sink.at("s3://bucket/a%20b", {}).place
