"""The schema of the simulator's fleets, as the template has it in params.yaml; a copy may have its own there."""

from closedloop.data.schema import Schema

SCHEMA = Schema(
    sensors=("volt", "rotate", "pressure", "vibration"),
    components=("comp1", "comp2", "comp3", "comp4"),
    errors=("error1", "error2", "error3", "error4", "error5"),
    models=("model1", "model2", "model3", "model4"),
    sampling_minutes=60,
    ranges=((0.0, 400.0), (0.0, 1000.0), (0.0, 300.0), (0.0, 150.0)),
)
