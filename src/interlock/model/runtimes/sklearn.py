"""scikit-learn models: stored by skops, never pickled, and loaded only if they hold types known to be harmless.

skops imports all of scikit-learn (two seconds), so everything here imports it inside functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from interlock.core.errors import RecipeFailed, Tampered
from interlock.model.signature import Signature

if TYPE_CHECKING:
    import pandas as pd

FILE = "model/model.skops"

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


def dump(estimator: Any) -> tuple[bytes, tuple[str, ...]]:
    """The estimator as skops bytes, and the types beyond skops' own list that these hold.

    Raises:
        RecipeFailed: it cannot be stored, or holds a type that is off the allow-list; the message names it.
    """
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
    return data, types


def load(data: bytes) -> Any:
    """The estimator of skops bytes.

    Raises:
        Tampered: they hold a type that is off the allow-list, or are no skops file.
    """
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        return skops.io.loads(data, trusted=sorted(ALLOWED))
    except UntrustedTypesFoundException as error:
        raise Tampered(f"the model file is refused: {error}") from error
    except Exception as error:
        raise Tampered(f"the model file cannot be read: {type(error).__name__}: {error}") from error


def predict(estimator: Any, signature: Signature, frame: pd.DataFrame) -> NDArray[np.float64]:
    """Numbers [rows, width] for model columns: P(positive), probabilities in the order of the classes, or the value."""
    if signature.task == "regression":
        return np.asarray(estimator.predict(frame), np.float64).reshape(len(frame), -1)
    probabilities = estimator.predict_proba(frame)
    known = estimator.classes_.tolist()
    wanted = signature.classes[1:] if signature.task == "binary" else signature.classes
    return np.asarray(probabilities[:, [known.index(label) for label in wanted]], np.float64)
