"""Late flights: will it arrive more than 15 minutes late, as far as one can tell before it leaves?"""

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier

from interlock.training import Dataset, features, recipe

NUMBERS = ["distance", "temp", "wind_speed", "precip", "visib", "pressure"]
CARRIERS = "9E AA AS B6 DL EV F9 FL HA MQ OO UA US VX WN YV"
ORIGINS = "EWR JFK LGA"
DESTINATIONS = """
    ABQ ACK ALB ANC ATL AUS AVL BDL BGR BHM BNA BOS BQN BTV BUF BUR BWI BZN CAE CAK CHO CHS CLE CLT CMH CRW CVG DAY DCA DEN
    DFW DSM DTW EGE EYW FLL GRR GSO GSP HDN HNL HOU IAD IAH ILM IND JAC JAX LAS LAX LEX LGA LGB MCI MCO MDW MEM MHT MIA MKE
    MSN MSP MSY MTJ MVY MYR OAK OKC OMA ORD ORF PBI PDX PHL PHX PIT PSE PSP PVD PWM RDU RIC ROC RSW SAN SAT SAV SBN SDF SEA
    SFO SJC SJU SLC SMF SNA SRQ STL STT SYR TPA TUL TVC TYS XNA
"""


def place(series, names):
    """The place of each value in a list of names; -1 for one that is not in it."""
    places = {name: float(i) for i, name in enumerate(names.split())}
    return np.array([places.get(value, -1.0) for value in series])


@features
def flight_features(raw):
    """Raw columns in, model columns out; the model server runs this very function."""
    departure = raw["sched_dep"].dt.tz_localize(None).to_numpy()  # New York's wall clock, as interlock.toml says
    day = departure.astype("datetime64[D]")
    numbers = {name: raw[name].to_numpy() for name in NUMBERS}
    return pd.DataFrame(
        {
            "carrier": place(raw["carrier"], CARRIERS),
            "origin": place(raw["origin"], ORIGINS),
            "dest": place(raw["dest"], DESTINATIONS),
            "hour": (departure - day) / np.timedelta64(1, "h"),
            "weekday": (day.astype("int64") + 3.0) % 7,
            **numbers,
        }
    )


@recipe(task="binary", features=flight_features)
def train(data: Dataset, *, learning_rate: float = 0.05, iterations: int = 80, leaves: int = 15):
    model = HistGradientBoostingClassifier(
        learning_rate=learning_rate, max_iter=iterations, max_leaf_nodes=leaves, early_stopping=False, random_state=7
    )
    return model.fit(data.features, data.label)
