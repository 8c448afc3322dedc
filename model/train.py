"""Train both heads on the validated tables and write the bundle.

Only training machines are read, and only their rows up to the cut less the horizon and the history, so the model has
seen nothing that judges it later. Two ablations are trained beside the bundle, one without telemetry and one without
the error log. The report shows with them what each of the two is worth.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from closedloop.data import sources, untouched
from closedloop.data.rfc3339 import to_text
from closedloop.data.schema import Schema, Tables
from closedloop.heads.bundle import Bundle, TrainedOn, write
from closedloop.heads.drift_reference_fit import fit_drift_reference
from closedloop.heads.manifest import HORIZON
from closedloop.judge.holdout import last_times
from closedloop.report import card
from model.common import cli, provenance
from model.common.param_rules import ENGINES
from model.common.params import Params, load
from model.common.training import ABLATIONS, InProcess, failures_of, training_rows

if TYPE_CHECKING:
    from model.common import spark_training


def train(
    tables: Tables, schema: Schema, params: Params, about: dict[str, Any], data: Path = cli.DATA
) -> Iterator[tuple[str, Bundle]]:
    """Yield the model, named ``bundle``, and then each ablation of its failure heads by its name.

    ``tables`` holds the training rows and no others; ``about`` gives the fleet's ``source`` and ``fingerprint``, and
    ``data`` is the folder of the fleet, which Spark reads by itself where ``engine: spark`` is set.
    """
    training = fitted(tables, schema, params, about, data)
    anomaly = training.anomaly
    cli.say(f"anomaly head: {params.anomaly['detector']}, alarm at {anomaly.threshold:.3f}")
    bundle = Bundle(
        schema=schema,
        spec=training.spec,
        constants=training.constants,
        anomaly=anomaly,
        failures=training.failures(),
        training=TrainedOn(
            machines={about["source"]: tables.named(np.unique(tables.machine)).tolist()},
            period=(to_text(int(tables.time.min())), to_text(int(tables.time.max()))),
            until_us={about["source"]: last_times(tables, np.ones(len(tables.time), bool))},
            fingerprint=about["fingerprint"],
        ),
        provenance={
            "commit": provenance.commit(),
            "libraries": provenance.libraries(),
            HORIZON: params.labels["horizon_hours"],
            "learned_from": {"rows": len(tables.time), "failures": failures_of(tables, training.grid, schema)},
            **({"engine": params.engine} if params.engine != ENGINES[0] else {}),
            **({untouched.KEY: params.untouched_share} if params.untouched_share else {}),
        },
        drift_reference=fit_drift_reference(tables, schema, training.score),
    )
    yield "bundle", replace(bundle, card=card.render(bundle, params.raw, about.get("rule", params.split["rule"])))
    for name, group in ABLATIONS.items():
        yield name, replace(bundle, failures=training.failures(group))


def fitted(
    tables: Tables, schema: Schema, params: Params, about: dict[str, Any], data: Path
) -> InProcess | spark_training.OnSpark:
    """Return the features and the anomaly head, from the engine that ``params.yaml`` asks for."""
    if params.engine == ENGINES[0]:
        return InProcess.of(tables, schema, params, about["source"])
    from model.common import spark_training  # it needs pyspark, which only this engine installs

    return spark_training.OnSpark.of(tables, schema, params, about, data)


def main(words: list[str]) -> None:
    """Write build/bundle and build/ablations/<name>."""
    flags = cli.parser(__doc__)
    flags.add_argument("--quick", action="store_true", help="train no ablations")
    args = flags.parse_args(words)
    params = load(args.params)
    about = cli.read_json(args.data / "data.json", "run: python -m model.data")
    params = params.of(about)
    schema = Schema.from_dict(about["schema"])
    tables = training_rows(sources.read_tables(args.data, schema, {}), about, params.delay_us)
    made = train(tables, schema, params, about, args.data)
    shutil.rmtree(args.out.parent / "ablations", ignore_errors=True)  # those of another model
    for name, bundle in islice(made, 1) if args.quick else made:
        folder: Path = args.out if name == "bundle" else args.out.parent / "ablations" / name
        shutil.rmtree(folder, ignore_errors=True)
        write(bundle, folder)
        cli.say(f"wrote {folder}")


if __name__ == "__main__":
    cli.main(main)
