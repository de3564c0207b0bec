"""scikit-learn models: stored by skops, never pickled, and loaded only if they hold types known to be harmless.

skops imports all of scikit-learn (two seconds), so everything here imports it inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from interlock.core.errors import RecipeFailed, Tampered
from interlock.core.settings import Task
from interlock.model.runtimes.interface import Stored, classes_of, library

if TYPE_CHECKING:
    import pandas as pd

FILE = "model/model.skops"
LIBRARIES: tuple[str, ...] = ("joblib", "numpy", "pandas", "scikit-learn", "scipy", "skops", "threadpoolctl")
RTOL = 1e-9
FRAME = True

ALLOWED = frozenset(
    {
        "functools.partial",
        "numpy.dtype",
        "scipy._lib.array_api_compat.numpy._aliases.asarray",
        "scipy.interpolate._bsplines.BSpline",
        "sklearn._loss.loss.HalfTweedieLossIdentity",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.calibration._TemperatureScaling",
        "sklearn.compose._column_transformer.make_column_selector",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.feature_selection._univariate_selection.chi2",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.feature_selection._univariate_selection.f_regression",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels.ConstantKernel",
        "sklearn.gaussian_process.kernels.Product",
        "sklearn.gaussian_process.kernels.RBF",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.metrics._dist_metrics.ManhattanDistance64",
        "sklearn.metrics._dist_metrics.MinkowskiDistance64",
        "sklearn.metrics._scorer._PassthroughScorer",
        "sklearn.model_selection._split.KFold",
        "sklearn.model_selection._split.StratifiedKFold",
        "sklearn.model_selection._split.TimeSeriesSplit",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.utils._bunch.Bunch",
        "sklearn.utils.validation.check_array",
    }
)
"""Types beyond skops' own list that common estimators hold. None of them runs code of the file when it is loaded."""


def dump(estimator: Any, requirements: tuple[str, ...] = ()) -> Stored:
    """The estimator as a skops file, and the types beyond skops' own list that it holds."""
    import skops.io

    try:
        data: bytes = skops.io.dumps(estimator)
        types = tuple(sorted(skops.io.get_untrusted_types(data=data)))
    except Exception as error:
        raise RecipeFailed(f"the {type(estimator).__name__} cannot be stored: {error}") from error
    strangers = [name for name in types if name not in ALLOWED]
    if strangers:
        raise RecipeFailed(
            f"the {type(estimator).__name__} holds {', '.join(strangers)}, which cannot be stored safely",
            next="build it of scikit-learn's own parts; put own code into the feature function",
        )
    columns = list(getattr(estimator, "feature_names_in_", ()))
    return Stored({FILE: data}, columns, classes_of(estimator), types)


def load(files: Mapping[str, bytes]) -> Any:
    """The estimator of a skops file, if every type in it is on the allow-list."""
    skops = library("skops.io", "sklearn")
    try:
        return skops.loads(files[FILE], trusted=sorted(ALLOWED))
    except skops.exceptions.UntrustedTypesFoundException as error:
        raise Tampered(f"the model file is refused: {error}") from error
    except Exception as error:
        raise Tampered(f"the model file cannot be read: {type(error).__name__}: {error}") from error


def predict(estimator: Any, task: Task, frame: pd.DataFrame) -> NDArray[Any]:
    """Values, or probabilities in the order of `classes_`."""
    return np.asarray(estimator.predict(frame) if task == "regression" else estimator.predict_proba(frame))
