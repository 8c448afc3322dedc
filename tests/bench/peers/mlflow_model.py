"""``mlflow models serve``: a pyfunc model from code, which gets one record: the tables, or a body as a string."""

from typing import Any

import handler
import mlflow


class Bench(mlflow.pyfunc.PythonModel):
    """Both columns."""

    def load_context(self, context: Any) -> None:
        """Load the model once."""
        self.answer: Any = handler.of_tables() if handler.COLUMN == "A" else handler.of_body()

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer the one record."""
        return self.answer(model_input.to_dict("records")[0] if handler.COLUMN == "A" else model_input["body"].iloc[0])


mlflow.models.set_model(Bench())
