"""What distinguishes a model from the champion, as sentences in report and summary."""

from copy import deepcopy

from closedloop.report.changes import of_manifests, of_params

CHAMPION = {
    "model_digest": "sha256:old",
    "features": {"names": ["volt_mean_3h", "volt_std_3h"]},
    "features_code": "sha256:code",
    "heads": {"anomaly": {"detector": "evidence_chart", "threshold": 2.5}, "failure": {"pump": {"threshold": 0.25}}},
    "training": {"machines": {"plant": [1, 2]}, "period": ["2026-01-01T00:00:00Z", "2026-03-01T00:00:00Z"]},
    "provenance": {"learned_from": {"rows": 1200}, "libraries": {"numpy": "2.4.0"}},
}


def challenger(**changes):
    """The champion with other values, by dotted key."""
    made = deepcopy(CHAMPION) | {"model_digest": "sha256:new"}
    for key, value in changes.items():
        *path, last = key.split("__")
        place = made
        for step in path:
            place = place[step]
        place[last] = value
    return made


def test_the_same_model_has_no_changes():
    assert of_manifests(CHAMPION, CHAMPION) == []
    assert of_manifests(CHAMPION, challenger()) == []


def test_each_kind_of_change_is_one_sentence():
    learned = {"training__fingerprint": "sha256:other", "training__machines": {"plant": [1, 2, 3]}}
    changes = {
        "features__names": ["volt_mean_3h", "volt_cusum"],
        "heads__failure": {"fan": {"threshold": 0.5}, "pump": {"threshold": 0.125}},
        "heads__anomaly": {"detector": "pca", "threshold": 2.5},
        "provenance__libraries": {"numpy": "2.5.0"},
    }
    assert of_manifests(CHAMPION, challenger(**changes, **learned)) == [
        "New features (1): volt_cusum",
        "Features that are gone (1): volt_std_3h",
        "New heads: fan",
        "Detector: evidence_chart → pca",
        "Thresholds: pump 0.25 → 0.125",
        "Learned from 3 machines, 1,200 rows, until 2026-03-01; the champion from 2 machines, 1,200 rows, "
        "until 2026-03-01",
        "Libraries: numpy 2.4.0 → 2.5.0",
    ]
    assert ["The code of the features changed, their names did not"] == of_manifests(
        CHAMPION, challenger(features_code="sha256:b")
    )


def test_a_long_list_is_cut_and_says_so():
    names = [f"feature_{n}" for n in range(20)]
    (new, gone) = of_manifests(CHAMPION, challenger(features__names=names))
    assert "New features (20): feature_0, " in new
    assert new.endswith("feature_7 and 12 more")
    assert gone == "Features that are gone (2): volt_mean_3h, volt_std_3h"


def test_parameters_are_named_by_key_with_both_values():
    assert of_params({"failure.folds": (3, 5), "loop.untouched_share": (None, 0.05)}) == [
        "failure.folds: 3 → 5",
        "loop.untouched_share: absent → 0.05",
    ]
