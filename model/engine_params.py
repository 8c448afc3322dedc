"""Write the parameter file in use for another engine.

An engine has its own estimators: where the file names one of another engine, the engine's first estimator takes its
place, with starting parameters. `make run ENGINE=spark` calls this and runs with the file.
"""

from __future__ import annotations

import yaml

from model.common import cli, params
from model.common.param_rules import ENGINES, ESTIMATORS

STARTING = {
    "local": {"max_iter": 100, "learning_rate": 0.08, "max_leaf_nodes": 6, "min_samples_leaf": 100},
    "spark": {"numTrees": 60, "maxDepth": 8, "minInstancesPerNode": 10, "maxMemoryInMB": 512},
}


def main(words: list[str]) -> None:
    """Write build/params-of-engine.yaml."""
    flags = cli.parser(__doc__, out=cli.BUILD / "params-of-engine.yaml", writes="the parameter file to write")
    flags.add_argument("--engine", choices=ENGINES, required=True, help="where features and heads are computed")
    args = flags.parse_args(words)
    raw = params.load(args.params).raw | {"engine": args.engine}
    own = ESTIMATORS[args.engine]
    if raw["failure"]["estimator"] not in own:
        raw["failure"] = raw["failure"] | {"estimator": own[0], "parameters": STARTING[args.engine]}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(yaml.safe_dump(raw, sort_keys=False, allow_unicode=True), encoding="utf-8")
    params.load(args.out)
    cli.say(f"wrote {args.out}: engine {args.engine}, estimator {raw['failure']['estimator']}")


if __name__ == "__main__":
    cli.main(main)
