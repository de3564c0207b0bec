"""pandas at the model's side: the same frame from an extract in training and from the wire in the model server."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from interlock.core.clock import FIRST_US, LAST_US
from interlock.core.errors import InvalidData
from interlock.model.columns import EXACT, NAT, Array
from interlock.model.signature import Input

if TYPE_CHECKING:
    import pandas as pd


def to_frame(inputs: tuple[Input, ...], arrays: list[Array]) -> pd.DataFrame:
    """What the feature function gets: one column a raw input, time stamps in the input's zone, text as `object`.

    The frame owns its values: a feature function may write into it.
    """
    import pandas as pd

    if all(values.dtype == np.float64 for values in arrays):  # one block: a fifth of the time of a column each
        return pd.DataFrame(np.array(arrays).T, columns=_index(tuple(spec.name for spec in inputs)), copy=False)
    index = pd.RangeIndex(len(arrays[0]))
    return pd.DataFrame(
        {spec.name: _column(spec, values, index) for spec, values in zip(inputs, arrays, strict=True)}, index=index
    )


def _column(spec: Input, values: Array, index: Any) -> Any:
    import pandas as pd

    if spec.type == "timestamp":
        return pd.DatetimeIndex(values.view("datetime64[us]"), tz="UTC").tz_convert(spec.zone)
    # Left to itself pandas guesses another type for a batch that holds only missing text.
    return pd.Series(values, index, dtype=object) if values.dtype == object else values


@cache
def _index(names: tuple[str, ...]) -> Any:
    import pandas as pd

    return pd.Index(names)


def to_columns(frame: pd.DataFrame, names: list[str]) -> list[Array]:
    """Model columns as arrays: float64 with NaN for missing wherever pandas knows numbers, else objects."""
    from pandas.api.types import is_numeric_dtype

    return [
        frame[name].to_numpy(np.float64, na_value=np.nan)
        if is_numeric_dtype(frame[name])
        else frame[name].to_numpy(object)
        for name in names
    ]


def from_frame(inputs: tuple[Input, ...], frame: pd.DataFrame) -> list[Array]:
    """Cast the raw columns of an extract to the wire: what training sees is what a client can send.

    Raises:
        InvalidData: a column is missing, holds nulls although it is not nullable, or does not fit its type.
    """
    missing = [spec.name for spec in inputs if spec.name not in frame.columns]
    if missing:
        raise InvalidData(
            f"the extract has no column {', '.join(missing)}", next="compare [inputs] with the extract's SQL"
        )
    return [_cast(spec, frame[spec.name]) for spec in inputs]


def _cast(spec: Input, series: pd.Series[Any]) -> Array:
    nulls = series.isna()
    if nulls.any() and not spec.nullable:
        raise InvalidData(
            f"input {spec.name!r} is not nullable, but {int(nulls.sum())} of {len(series)} rows hold none",
            next=f'say {spec.name} = {{ type = "{spec.type}", nullable = true }}, or leave those rows out in the SQL',
        )
    try:
        return _values(spec, series, nulls.to_numpy(bool))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidData(f"input {spec.name!r} ({series.dtype}) cannot be read as {spec.type}: {error}") from error


def _values(spec: Input, series: pd.Series[Any], nulls: Array) -> Array:
    if spec.type == "timestamp":
        return _times(spec, series, nulls)
    if spec.type in ("string", "category"):
        texts: Array = series.astype(object).to_numpy().copy()
        texts[nulls] = None
        strangers = {type(value).__name__ for value in texts[~nulls] if type(value) is not str}
        if strangers:
            raise TypeError(f"holds {', '.join(sorted(strangers))}, not text: cast it in the SQL")
        return texts
    numbers: Array = series.to_numpy(np.float64, na_value=np.nan)
    if spec.type == "float":
        if np.isinf(numbers).any():
            raise ValueError("holds infinite values")
        return numbers
    known = numbers[~nulls]
    if spec.type == "bool":
        if not np.isin(known, (0.0, 1.0)).all():
            raise ValueError("holds values other than true and false")
        return numbers if spec.nullable else numbers.astype(np.bool_)
    if not (known == np.floor(known)).all():
        raise ValueError("holds fractions")
    if spec.nullable:
        if np.abs(known).max(initial=0.0) > EXACT:
            raise ValueError("holds whole numbers over 2^53, which a nullable int cannot carry")
        return numbers
    whole: Array = series.to_numpy(np.int64)
    return whole


def _times(spec: Input, series: pd.Series[Any], nulls: Array) -> Array:
    if getattr(series.dtype, "tz", None) is None:
        raise TypeError(f"has no zone: write {spec.name} AT TIME ZONE '{spec.zone}' in the SQL")
    instants: Array = series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]").astype(np.int64)
    known = instants[~nulls]
    if known.min(initial=FIRST_US) < FIRST_US or known.max(initial=LAST_US) > LAST_US:
        raise ValueError("holds times outside the years 1 to 9999")
    instants[nulls] = NAT
    return instants
