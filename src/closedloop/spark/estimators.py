"""The estimators of MLlib that can be flattened, with the parameters that ``params.yaml`` may set for them.

The parameters have MLlib's own names. Columns, seed and thresholds are set by training.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval, StrOptions

FEATURES, LABEL, WEIGHT = "features", "label", "weight"  # the columns to learn from: a vector, 0 or 1, a number


class MLlibTrees:
    """What both have: the parameters of their trees."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "maxDepth": [Interval(Integral, 0, 30, closed="both")],
        "maxBins": [Interval(Integral, 2, None, closed="left")],
        "minInstancesPerNode": [Interval(Integral, 1, None, closed="left")],
        "minInfoGain": [Interval(Real, 0, None, closed="left")],
        "maxMemoryInMB": [Interval(Integral, 1, None, closed="left")],
        "subsamplingRate": [Interval(Real, 0, 1, closed="right")],
        "featureSubsetStrategy": [StrOptions({"auto", "all", "onethird", "sqrt", "log2"})],
    }


class RandomForest(MLlibTrees):
    """RandomForestClassifier: a tree's value is the share of failures in the leaf."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **MLlibTrees._parameter_constraints,
        "numTrees": [Interval(Integral, 1, None, closed="left")],
        "impurity": [StrOptions({"gini", "entropy"})],
    }


class GradientBoostedTrees(MLlibTrees):
    """GBTClassifier, with logistic loss."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **MLlibTrees._parameter_constraints,
        "maxIter": [Interval(Integral, 1, None, closed="left")],
        "stepSize": [Interval(Real, 0, 1, closed="right")],
    }


NAMES = ("random_forest", "gradient_boosted_trees")  # in params.yaml


def estimator(name: str, parameters: dict[str, Any], seed: int) -> Any:
    """The unfitted estimator of MLlib.

    A random forest of MLlib merges leaves of the same class. Failures are rare, so that most leaves would say no and
    little would be left of the trees: it is trained with weights that make the classes equally heavy, and the
    calibration corrects the base rate.
    """
    from pyspark.ml.classification import GBTClassifier, RandomForestClassifier  # only where there is a session

    kind = RandomForestClassifier if name == NAMES[0] else GBTClassifier
    weighted = {"weightCol": WEIGHT} if name == NAMES[0] else {}
    return kind(featuresCol=FEATURES, labelCol=LABEL, seed=seed, **weighted, **parameters)
