"""What a bundle may not be: changed by accident, or by someone who corrected its digests."""

import json
import os
import pickle

import msgspec
import numpy as np
import pytest

from closedloop.heads import bundle as module
from closedloop.heads import storage
from closedloop.heads.bundle import BundleError, load, load_drift_reference, write
from closedloop.heads.manifest import FileEntry, Manifest
from closedloop.heads.storage import REFERENCE, pack, sha256, unpack

ANOMALY, PUMP, SEAL = (f"heads/{name}.safetensors" for name in ("anomaly", "failure-01", "failure-03"))


@pytest.fixture
def folder(trained, tmp_path):
    write(trained, tmp_path / "bundle")
    return tmp_path / "bundle"


def refusal(folder):
    """The one line with which a bundle is refused."""
    with pytest.raises(BundleError) as caught:
        load(folder)
    message = str(caught.value)
    assert message.startswith(f"bundle {folder}: ")
    assert "\n" not in message
    assert len(message) < 500 + len(str(folder))
    return message.removeprefix(f"bundle {folder}: ")


def redigest(folder, change=None):
    """Give a changed bundle the digests of an untouched one, as a forger can; ``change`` edits the manifest."""
    raw = json.loads((folder / "manifest.json").read_text())
    raw["files"] = {
        name: {"sha256": sha256(data), "bytes": len(data)}
        for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        if name != "manifest.json" and (data := (folder / name).read_bytes()) is not None
    }
    if change is not None:
        change(raw)
    manifest = msgspec.convert(raw, Manifest)
    model, whole = manifest.digests()
    manifest = msgspec.structs.replace(manifest, model_digest=model, bundle_digest=whole)
    (folder / "manifest.json").write_bytes(manifest.render())


def rewrite(folder, name, **changes):
    """Change arrays of a file (None drops one) and correct all digests."""
    arrays = unpack(name, (folder / name).read_bytes()) | changes
    (folder / name).write_bytes(pack({key: array for key, array in arrays.items() if array is not None}))
    redigest(folder)


def test_a_bundle_whose_digests_were_corrected_is_accepted(folder):
    """So that the refusals below are for what was forged, not for how."""
    before = (folder / "manifest.json").read_bytes()
    redigest(folder)
    assert before == (folder / "manifest.json").read_bytes()
    rewrite(folder, PUMP, calibration=np.array([1.0, 0.0]))
    load(folder)


def test_no_folder_no_bundle(tmp_path):
    assert "cannot be read: No such file or directory; train a bundle" in refusal(tmp_path / "none")
    assert "card.md is missing" in refusal_of_empty(tmp_path)


def refusal_of_empty(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "manifest.json").write_text("{}")
    return refusal(tmp_path / "empty")


@pytest.mark.parametrize("name", ["manifest.json", REFERENCE, "card.md", ANOMALY, PUMP, SEAL])
def test_a_missing_file_is_named(name, folder):
    (folder / name).unlink()
    assert name in refusal(folder)


@pytest.mark.parametrize(
    "name", ["extra.txt", ".hidden", "heads/pump.pkl", "heads/pump.skops", "heads/x/y.safetensors", "Manifest.json"]
)
@pytest.mark.parametrize("corrected", [False, True])
def test_a_file_that_does_not_belong_is_named(name, corrected, folder):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"hello")
    if corrected:
        redigest(folder)
    top = "heads/x" if "/x/" in name else name
    assert f"'{top}' does not belong in a bundle" in refusal(folder)


@pytest.mark.parametrize("corrected", [False, True])
def test_a_head_that_no_component_names_is_refused(corrected, folder):
    (folder / "heads" / "failure-02.safetensors").write_bytes((folder / PUMP).read_bytes())
    if corrected:
        redigest(folder)
        assert "the heads in the manifest are not the files in heads/" in refusal(folder)
    else:
        assert "'heads/failure-02.safetensors' is not in the manifest" in refusal(folder)


@pytest.mark.parametrize("name", ["manifest.json", "card.md", PUMP])
def test_links_are_refused_though_their_target_is_right(name, folder, tmp_path):
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    assert f"{name} is not a regular file; copy the bundle without links" in refusal(folder)


def test_a_linked_folder_of_heads_is_refused(folder, tmp_path):
    (folder / "heads").rename(tmp_path / "elsewhere")
    (folder / "heads").symlink_to(tmp_path / "elsewhere")
    assert "'heads' does not belong in a bundle" in refusal(folder)


def test_a_pipe_is_refused_and_not_waited_for(folder):
    (folder / "card.md").unlink()
    os.mkfifo(folder / "card.md")
    assert "card.md is not a regular file" in refusal(folder)


@pytest.mark.parametrize("name", [REFERENCE, "card.md", ANOMALY, PUMP, SEAL])
@pytest.mark.parametrize("change", ["truncated", "extended", "flipped"])
def test_a_changed_file_is_named(name, change, folder):
    data = bytearray((folder / name).read_bytes())
    if change == "truncated":
        del data[-1]
    elif change == "extended":
        data += b"\0"
    else:
        data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    assert f"{name} was changed: its sha256 is not the manifest's" in refusal(folder)


@pytest.mark.parametrize("name", [REFERENCE, ANOMALY, PUMP])
@pytest.mark.parametrize("change", ["truncated", "extended", "empty", "short", "huge header"])
def test_a_file_that_is_no_safetensors_is_refused_with_corrected_digests(name, change, folder):
    data = (folder / name).read_bytes()
    changed = {
        "truncated": data[:-8],
        "extended": data + bytes(8),
        "empty": b"",
        "short": data[:5],
        "huge header": (2**40).to_bytes(8, "little") + data[8:],
    }
    (folder / name).write_bytes(changed[change])
    redigest(folder)
    assert f"{name} is not a safetensors file" in refusal(folder)


def test_a_header_of_megabytes_is_refused_though_it_is_sound(folder):
    data = (folder / PUMP).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].ljust(2 * storage.HEADER_LIMIT)
    (folder / PUMP).write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    redigest(folder)
    assert "its header would exceed 1048576 bytes" in refusal(folder)


class PickleBomb:
    """What a pickle can do: run anything on being read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", [REFERENCE, ANOMALY, PUMP])
def test_a_pickle_in_disguise_never_runs(name, folder, tmp_path):
    (folder / name).write_bytes(pickle.dumps(PickleBomb(tmp_path / "pwned")))
    redigest(folder)
    assert f"{name} is not a safetensors file" in refusal(folder)
    assert not (tmp_path / "pwned").exists()


def test_too_large_a_file_is_refused_before_it_is_read(folder, monkeypatch):
    os.truncate(folder / "card.md", 2**40)  # sparse: it takes no space
    assert "card.md has 1099511627776 bytes, more than the 1048576 allowed" in refusal(folder)
    os.truncate(folder / "card.md", 3)
    monkeypatch.setattr(storage, "MOST_FILES", 5)
    assert "it has more than 5 files" in refusal(folder)


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda text: "", "manifest.json is not JSON"),
        (lambda text: text[:-9], "manifest.json is not JSON"),
        (lambda text: "[" * 100_000, "manifest.json is not JSON"),
        (lambda text: '{"format": NaN}', "manifest.json is not JSON"),
        (lambda text: "[1]", "its format is None, this code reads 'closedloop-bundle-1'"),
        (lambda text: text.replace("bundle-1", "bundle-2", 1), "its format is 'closedloop-bundle-2'"),
        (lambda text: text + " ", "not written as training writes it"),
        (lambda text: text.replace('"m1"', '"m\\u0031"'), "not written as training writes it"),
        (lambda text: text.replace('"format"', '"format": 1, "format"', 1), "not written as training writes it"),
        (lambda text: text.replace('"history_hours": 12.0', '"history_hours": 12'), "not written as training writes"),
        (lambda text: text.replace("\n}\n", ',\n "more": 1\n}\n'), "unknown field `more`"),
        (lambda text: text.replace('"threshold": ', '"threshold": "0.6", "x": ', 1), "Expected `float`, got `str`"),
        (lambda text: text.replace('"threshold": ', '"threshold": 1', 1), "model_digest does not fit"),
        (lambda text: text.replace('"commit": "0', '"commit": "1'), "bundle_digest does not fit"),
        (lambda text: text.replace('"machines"', '"engines"'), "unknown field `engines`"),
    ],
)
def test_a_changed_manifest_is_refused(edit, why, folder):
    path = folder / "manifest.json"
    before = path.read_text()
    path.write_text(edit(before))
    assert before != path.read_text()
    assert why in refusal(folder)


def test_a_manifest_with_stale_digests_is_refused(folder):
    raw = json.loads((folder / "manifest.json").read_text())
    raw["model_digest"] = "sha256:" + "0" * 64
    (folder / "manifest.json").write_bytes(msgspec.convert(raw, Manifest).render())
    assert "its model_digest does not fit its content" in refusal(folder)


def drop_a_feature(raw):
    raw["features"]["names"].pop()


def widen_a_window(raw):
    raw["features"]["rolling"]["windows_hours"] = [3.0, 1e9]


def swap_sensors(raw):
    raw["schema"]["sensors"] = dict(reversed(raw["schema"]["sensors"].items()))


def more_models(raw):
    raw["schema"]["models"].append("m3")


MISMATCHES = {
    "it was trained with other feature code than this": lambda raw: raw.update(features_code="sha256:0"),
    "its feature spec is not the one": drop_a_feature,
    "its feature spec is refused": widen_a_window,
    "its schema is refused (schema.components: a name occurs twice": lambda raw: raw["schema"].update(
        components=["pump", "pump"]
    ),
    "its feature spec is refused ('rolling')": lambda raw: raw["features"].pop("rolling"),
    "its feature spec is not the one that": swap_sensors,
    "its feature spec is not the one that this code derives": more_models,
    "the baselines are not those of the manifest": lambda raw: raw.update(constants="sha256:0"),
    "detector 'magic' is unknown": lambda raw: raw["heads"]["anomaly"].update(detector="magic"),
    "'components' is missing": lambda raw: raw["heads"]["anomaly"].update(detector="pca"),
    "the heads in the manifest are not the files in heads/": lambda raw: raw["heads"].update(anomaly=None),
    "does not list the schema's components": lambda raw: raw["heads"]["failure"].pop("valve"),
    "heads/failure-01.safetensors: 'location' is missing": lambda raw: (
        raw["heads"]["failure"]["pump"].update(file=ANOMALY),
        raw["heads"]["anomaly"].update(file=PUMP),
    ),
    "'../../etc/passwd' is in the manifest but not in the folder": lambda raw: raw["files"].update(
        {"../../etc/passwd": raw["files"]["card.md"]}
    ),
    "card.md was changed": lambda raw: raw["files"]["card.md"].update(bytes=7),
    "history_hours in the manifest": lambda raw: raw.update(history_hours=24.0),
}


@pytest.mark.parametrize("why", MISMATCHES)
def test_parts_that_do_not_belong_together_are_refused_with_corrected_digests(why, folder):
    redigest(folder, MISMATCHES[why])
    assert why in refusal(folder)


def edited(folder, name, key, index, value):
    array = unpack(name, (folder / name).read_bytes())[key].copy()
    array[index] = value
    return {key: array}


@pytest.mark.parametrize(
    ("name", "key", "index", "value", "why"),
    [
        (PUMP, "left", 0, 0, "a child does not lie behind its parent"),
        (PUMP, "left", 0, 2**30, "a child does not lie behind its parent"),
        (PUMP, "left", 0, -7, "a child does not lie behind its parent"),
        (PUMP, "feature", 0, 10_000, "a split reads a feature outside"),
        (PUMP, "feature", 0, -1, "a split reads a feature outside"),
        (PUMP, "threshold", 0, np.nan, "a threshold is NaN"),
        (PUMP, "roots", 1, 10**6, "roots do not divide"),
        (PUMP, "roots", 0, -1, "roots do not divide"),
        (PUMP, "divisor", 0, 0.0, "divisor is not a usable number"),
        (PUMP, "baseline", 0, np.inf, "baseline or divisor"),
        (PUMP, "calibration", 0, np.nan, "'calibration' is not two finite numbers"),
        (PUMP, "columns", 0, 10_000, "failure head of 'pump': it reads a feature outside"),
        (PUMP, "columns", 0, -1, "none below 0"),
        (ANOMALY, "columns", 0, 10_000, "anomaly head: it reads a feature outside"),
        (ANOMALY, "columns", 0, -1, "none below 0"),
        (ANOMALY, "scale", 0, 0.0, "'scale' is not above 0"),
        (ANOMALY, "location", 0, np.nan, "'location' is not"),
    ],
)
def test_forged_arrays_never_reach_a_compiled_loop(name, key, index, value, why, folder, monkeypatch):
    monkeypatch.setattr(module, "walk_stack", lambda *_: pytest.fail("walked"))
    rewrite(folder, name, **edited(folder, name, key, index, value))
    assert why in refusal(folder)


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        (PUMP, {"left": None}, "'left' is missing"),
        (PUMP, {"more": np.zeros(1)}, "'more' is unknown"),
        (PUMP, {"columns": np.zeros(3)}, "'columns' is not an array of int32 in 1 dimension"),
        (PUMP, {"columns": np.zeros(0, np.int32)}, "needs at least one column"),
        (PUMP, {"columns": np.zeros(1, np.int32)}, "a split reads a feature outside the 1"),
        (PUMP, {"threshold": np.zeros((2, 3))}, "'threshold' is not an array of float64 in 1 dimension"),
        (PUMP, {"feature": np.zeros(2, np.int32)}, "node arrays differ in length"),
        (PUMP, {"roots": np.zeros(0, np.int32)}, "roots do not divide"),
        (PUMP, {"divisor": np.ones(2)}, "'divisor' is not one number"),
        (PUMP, {"calibration": np.ones(3)}, "'calibration' is not two finite numbers"),
        (ANOMALY, {"location": np.zeros(2)}, "'location' is not"),
        (ANOMALY, {"more": np.zeros(1)}, "'more' is unknown"),
        (REFERENCE, {"other": np.zeros(1)}, "'other' is unknown"),
        (REFERENCE, {"constants.scale": None}, "'scale' is missing"),
        (REFERENCE, {"constants.more": np.zeros((3, 2))}, "'constants.more' is unknown"),
        (REFERENCE, {"constants.scale": np.zeros((3, 2))}, "the baselines are not those of the manifest"),
        (REFERENCE, {"drift.edges": None}, "drift reference: 'edges' is missing"),
        (REFERENCE, {"drift.more": np.zeros(1)}, "drift reference: 'more' is unknown"),
        (
            REFERENCE,
            {"drift.counts": np.ones((3, 10))},
            "'counts' is not an array of int64 in 2 dimension",
        ),
        (
            REFERENCE,
            {"drift.quantiles": np.zeros((2, 9))},
            "'quantiles' has the shape (2, 9), not (3, 9)",
        ),
        (REFERENCE, {"drift.missing": np.zeros(2)}, "'missing' has the shape (2,), not (3,)"),
        (REFERENCE, {"drift.error_counts": np.zeros(2, np.int64)}, "has the shape (2,), not (1,)"),
        (REFERENCE, {"drift.day_means": np.zeros((3, 0))}, "'day_means' has the shape (3, 0), not (3, "),
        (REFERENCE, {"drift.machine_days": np.zeros(2)}, "'machine_days' is not one number"),
        (
            REFERENCE,
            {"drift.day_machine": np.zeros(3000, np.int64), "drift.day_means": np.zeros((3, 3000))},
            "drift reference: it has 3000 machine-days, more than the 2048 of a sample",
        ),
    ],
)
def test_arrays_of_another_form_are_refused_with_corrected_digests(name, changes, why, folder):
    rewrite(folder, name, **changes)
    assert why in refusal(folder)


@pytest.mark.parametrize(
    ("key", "index", "value", "why"),
    [
        ("quantiles", (0, 0), np.nan, "'quantiles' holds numbers that are not finite"),
        ("quantiles", (0, 0), 1e9, "'quantiles' do not rise"),
        ("edges", (2, 8), -1e9, "'edges' do not rise"),
        ("counts", (0, 0), -1, "'counts' holds a count below 0"),
        ("counts", 1, 0, "'counts' has a column without a reading"),
        ("covariance", (0, 3, 3), -1.0, "'covariance' has a variance below 0"),
        ("missing", 0, 1.5, "'missing' is not a share from 0 to 1"),
        ("missing", 0, -0.5, "'missing' is not a share from 0 to 1"),
        ("day_means", (0, 0), np.inf, "'day_means' holds numbers that are not finite"),
        ("day_machine", 0, 99, "'day_machine' is not sorted"),
        ("error_counts", 0, -1, "'error_counts' holds a count below 0"),
        ("machine_days", 0, 0.0, "'machine_days' is not a number above 0"),
        ("machine_days", 0, np.inf, "'machine_days' is not a number above 0"),
    ],
)
def test_a_forged_drift_reference_is_refused_with_corrected_digests(key, index, value, why, folder):
    """By whoever reads it: the service with all of the bundle, and validation with nothing else of it."""
    rewrite(folder, REFERENCE, **edited(folder, REFERENCE, f"drift.{key}", index, value))
    assert refusal(folder) == f"drift reference: {why}; train again"
    with pytest.raises(BundleError, match="drift reference") as caught:
        load_drift_reference(folder)
    assert str(caught.value).endswith(f"drift reference: {why}; train again")


def test_a_drift_reference_is_read_whatever_feature_code_made_it_and_a_changed_one_is_not(folder, trained, monkeypatch):
    """Arrays need no code, so an older champion's still serve; who changed them is found out as ever."""
    monkeypatch.setattr(module, "code_digest", lambda: "sha256:other")
    assert "other feature code" in refusal(folder)
    schema, reference = load_drift_reference(folder)
    assert (schema, reference.counts.tolist()) == (trained.schema, trained.drift_reference.counts.tolist())
    data = (folder / REFERENCE).read_bytes()
    (folder / REFERENCE).write_bytes(data[:-1] + b"\0\0")
    with pytest.raises(BundleError, match=r"bundle .*: reference\.safetensors was changed"):
        load_drift_reference(folder)


def test_forged_baselines_are_refused_with_corrected_digests(folder, trained):
    constants = trained.constants.to_arrays() | {"scale": np.zeros((3, 2))}
    rewrite(folder, REFERENCE, **{f"constants.{name}": array for name, array in constants.items()})
    redigest(folder, lambda raw: raw.update(constants=sha256(pack(constants))))
    assert "baseline 'scale' is not (3, 2) usable numbers" in refusal(folder)


@pytest.mark.parametrize("damage", ["extra file", "changed file", "stale digest", "other code"])
def test_nothing_is_parsed_before_everything_is_verified(damage, folder, monkeypatch):
    if damage == "extra file":
        (folder / "extra").touch()
    elif damage == "changed file":
        (folder / SEAL).write_bytes((folder / SEAL).read_bytes() + b"\0")
    elif damage == "stale digest":
        text = (folder / "manifest.json").read_text()
        (folder / "manifest.json").write_text(text.replace('"commit": "0', '"commit": "1'))
    else:
        monkeypatch.setattr(module, "code_digest", lambda: "sha256:other")
    monkeypatch.setattr(module, "unpack", lambda *_: pytest.fail("parsed"))
    monkeypatch.setattr(module.FeatureSpec, "from_dict", lambda *_: pytest.fail("parsed"))
    opened = []
    real = module.read
    monkeypatch.setattr(module, "read", lambda *args: opened.append(args[1]) or real(*args))
    refusal(folder)
    assert opened[:1] == ([] if damage == "extra file" else ["manifest.json"])


def test_a_file_that_changes_while_it_is_read_is_refused(folder, monkeypatch):
    real = module.listing
    monkeypatch.setattr(module, "listing", lambda path: real(path) | {"card.md": 3})
    assert "card.md changed while it was read" in refusal(folder)


def test_a_file_that_vanishes_before_it_is_read_is_named(folder, monkeypatch):
    real = module.listing

    def listing(path):
        found = real(path)
        (path / "card.md").unlink()
        return found

    monkeypatch.setattr(module, "listing", listing)
    assert "card.md cannot be read: No such file or directory" in refusal(folder)


def test_a_head_file_may_not_serve_two_components(folder):
    def share(raw):
        raw["heads"]["failure"]["valve"] = raw["heads"]["failure"]["pump"]

    redigest(folder, share)
    assert "the heads in the manifest are not the files in heads/" in refusal(folder)


def test_entries_of_the_manifest_are_what_the_files_are(folder):
    manifest = load(folder).manifest
    assert {name: FileEntry(sha256((folder / name).read_bytes()), (folder / name).stat().st_size)
            for name in manifest.files} == manifest.files  # fmt: skip
