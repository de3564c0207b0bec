"""Late flights: will it arrive more than 15 minutes late, as far as one can tell before it leaves?"""

from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from interlock.training import Dataset, features, recipe

PLACES = ["carrier", "origin", "dest"]


@features
def flight_features(raw):
    """Raw columns in, model columns out; the model server runs this very function."""
    departure = raw["sched_dep"].dt  # in New York time, as interlock.toml says
    return raw.drop(columns="sched_dep").assign(
        hour=departure.hour + departure.minute / 60,
        weekday=departure.dayofweek.astype("float64"),
    )


@recipe(task="binary", features=flight_features)
def train(data: Dataset, *, learning_rate: float = 0.05, iterations: int = 80, leaves: int = 15):
    places = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    trees = HistGradientBoostingClassifier(
        learning_rate=learning_rate, max_iter=iterations, max_leaf_nodes=leaves, early_stopping=False, random_state=7
    )
    model = make_pipeline(make_column_transformer((places, PLACES), remainder="passthrough"), trees)
    return model.fit(data.features, data.label)
