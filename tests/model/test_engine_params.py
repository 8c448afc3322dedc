"""The parameter file for another engine: what it keeps, and which estimator it takes."""

import pytest
import yaml

from model.common import params
from model.engine_params import main
from simulated_fleet import PARAMS

OF_LOCAL = ("local", "hist_gradient_boosting", "l2_regularization")


@pytest.mark.parametrize(("engine", "estimator", "parameter"), [("spark", "random_forest", "numTrees"), OF_LOCAL])
def test_an_engine_gets_an_estimator_of_its_own_and_everything_else_stays(tmp_path, engine, estimator, parameter):
    out = tmp_path / "p.yaml"
    main(["--engine", engine, "--out", str(out)])
    raw = params.load(out).raw
    assert raw["engine"] == engine
    assert raw["failure"]["estimator"] == estimator
    assert parameter in raw["failure"]["parameters"]
    raw["failure"] |= {key: PARAMS["failure"][key] for key in ("estimator", "parameters")}
    assert {key: value for key, value in raw.items() if key != "engine"} == PARAMS


def test_an_estimator_of_the_engine_stays(tmp_path):
    trees = {"estimator": "gradient_boosted_trees", "parameters": {"maxIter": 5}}
    given = tmp_path / "given.yaml"
    given.write_text(yaml.safe_dump(PARAMS | {"engine": "spark", "failure": PARAMS["failure"] | trees}))
    main(["--engine", "spark", "--params", str(given), "--out", str(tmp_path / "p.yaml")])
    assert params.load(tmp_path / "p.yaml").raw == params.load(given).raw
    main(["--engine", "local", "--params", str(given), "--out", str(tmp_path / "p.yaml")])
    assert params.load(tmp_path / "p.yaml").failure["estimator"] == "hist_gradient_boosting"
