"""Data frames: the model is given frames with the columns that it knows, and the point is read by their names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import symtorch_core as st
from symtorch_slime import SlimeCapture, explain

GENERATOR = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {"mass (kg)": GENERATOR.normal(size=400), "v": GENERATOR.normal(size=400), "kind": np.arange(400) % 3}
)
FORCE = 2 * FRAME["mass (kg)"] + 3 * FRAME["v"] + 5 * (FRAME["kind"] == 2)
QUICK: dict[str, Any] = {
    "regressor": "sparse",
    "progress": False,
    "unary_operators": (),
    "out_of_range": False,  # where the codes would be none
}


def make_pipe(last: Any = None) -> Pipeline:
    """A pipeline that finds its columns by name, and so needs a frame."""
    columns = ColumnTransformer(
        [("scaled", StandardScaler(), ["v", "mass (kg)"]), ("codes", OneHotEncoder(), ["kind"])]
    )
    return make_pipeline(columns, last or LinearRegression())


PIPE = make_pipe().fit(FRAME, FORCE)


@pytest.mark.parametrize("block", [PIPE, PIPE.predict])
@pytest.mark.parametrize("point", [FRAME.iloc[4], FRAME.iloc[[4]], FRAME[["v", "kind", "mass (kg)"]].iloc[4]])
def test_a_pipeline_near_a_row(block: Any, point: Any) -> None:
    near = {"x_star": point, "categorical": ["kind"]}
    result = st.distill(block, FRAME, capture="slime", capture_options=near, **QUICK)
    assert result.transforms.input_names == ("mass_kg", "v", "kind")
    assert result.chosen()[0].text() == "2*mass_kg + 3*v - 2.5*kind + 2.5*kind^2"


def test_the_model_is_given_frames() -> None:
    seen: list[pd.DataFrame] = []

    def function(frame: pd.DataFrame) -> pd.Series:
        seen.append(frame)
        return 2 * frame["mass (kg)"]

    rows = SlimeCapture(FRAME.iloc[0], samples=20, neighbours=10, categorical=["kind"]).collect(
        function, FRAME
    )
    assert [frame.columns.tolist() for frame in seen] == [FRAME.columns.tolist()]
    assert seen[0].dtypes.tolist() == FRAME.dtypes.tolist()
    assert rows.inputs[:, 0].tolist() == pytest.approx((rows.outputs[:, 0] / 2).tolist())


def test_explanations() -> None:
    found = explain(PIPE, FRAME, FRAME.iloc[4], categorical=["kind"], **QUICK)
    assert found.gradient[0, :2].tolist() == pytest.approx([2, 3])
    assert set(found.top()) == {"mass_kg", "v", "kind"}
    classifier = make_pipe(LogisticRegression()).fit(FRAME, FORCE > 1)
    found = explain(
        classifier.predict_proba, FRAME, FRAME.iloc[4], categorical=["kind"], outputs=[1], **QUICK
    )
    assert found.gradient[0, 1] > found.gradient[0, 0] > 0
    with pytest.raises(st.CaptureError, match="predict_proba"):
        explain(classifier, FRAME, FRAME.iloc[4], **QUICK)


def test_what_is_refused() -> None:
    with pytest.raises(st.CaptureError, match="x_star is no row of the data.*'kind'"):
        SlimeCapture(FRAME.iloc[0].drop("kind")).collect(PIPE.predict, FRAME)
    with pytest.raises(st.CaptureError, match="'kin', which is no column of the data. Did you mean 'kind'"):
        SlimeCapture(FRAME.iloc[0], categorical=["kin"]).collect(PIPE.predict, FRAME)
    with pytest.raises(st.CaptureError, match="not numbers: 'kind'"):
        explain(PIPE.predict, FRAME.assign(kind="a"), FRAME.iloc[0], **QUICK)
