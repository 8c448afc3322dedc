"""Read and check ``params.yaml``. Every slip in it is one message with file, line, cause and fix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from closedloop.data import reading
from closedloop.data.schema import DataError, Schema, microseconds
from closedloop.judge.split import PREFIX
from model.common import slips, yaml_lines
from model.common.param_rules import ENGINES, SECTIONS

PARAMS = Path(__file__).parents[1] / "params.yaml"


@dataclass(frozen=True)
class Params:
    """The content of a parameter file. ``raw`` is the file as read; horizons and windows are in hours."""

    source: str
    schema: Schema
    columns: dict[str, dict[str, str]]
    files: reading.FileNames
    read: dict[str, Any]
    features: dict[str, Any]
    labels: dict[str, Any]
    split: dict[str, Any]
    anomaly: dict[str, Any]
    failure: dict[str, Any]
    judge: dict[str, Any]
    gate: dict[str, Any]
    seed: int
    raw: dict[str, Any]

    @property
    def horizon_us(self) -> int:
        """The time that a failure head looks ahead, in microseconds."""
        return microseconds(self.labels["horizon_hours"])

    @property
    def delay_us(self) -> int | None:
        """After how long silence counts as health in a log, in microseconds; None where that is not set."""
        hours = self.labels.get("reporting_delay_hours")
        return None if hours is None else microseconds(hours)

    @property
    def untouched_share(self) -> float:
        """The share of machines whose alarms are logged and not shown; 0 where that is not set."""
        return float((self.raw.get("loop") or {}).get("untouched_share", 0.0))

    @property
    def engine(self) -> str:
        """Where features are computed and heads are trained: one of ``param_rules.ENGINES``."""
        return str(self.raw.get("engine", ENGINES[0]))

    def of(self, about: Mapping[str, Any]) -> Params:
        """Return these parameters for the fetched fleet; ``about`` is the content of ``build/data/data.json``.

        ``source`` is the fleet's name there, whatever fleet the file was written for.
        """
        return parse(of_fleet(self.raw, about) | {"source": about["source"]})


class ParamsError(DataError):
    """The parameter file was refused; the message has one line for each slip, at most ``slips.SHOWN`` of them."""

    def __init__(self, path: Path, found: Iterable[tuple[int | None, str]]) -> None:
        self.slips = list(found)
        name = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        lines = [f"{name}:{line}: {said}" if line else f"{name}: {said}" for line, said in self.slips]
        if more := len(lines) - slips.SHOWN:
            lines[slips.SHOWN :] = [f"{name}: and {more} more; correct these first"] if more > 0 else []
        super().__init__("\n".join(lines))


def load(path: Path | None = None) -> Params:
    """Read and check a parameter file, by default ``PARAMS``.

    Raises:
        ParamsError: the file cannot be read, or it has slips.
    """
    path = path or PARAMS
    try:
        found = yaml_lines.read(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        line = path.read_bytes().count(b"\n", 0, error.start) + 1
        raise ParamsError(path, [(line, "is not UTF-8; save the file in that encoding")]) from None
    except OSError as error:
        fix = "name an existing file with --params" if isinstance(error, FileNotFoundError) else "correct the path"
        raise ParamsError(path, [(None, f"cannot be read: {error.strerror}; {fix}")]) from None
    except yaml_lines.NotYamlError as error:
        raise ParamsError(path, [(error.line, str(error))]) from None
    if refused := slips.slips_of(found):
        raise ParamsError(path, [(line, str(slip)) for line, slip in refused])
    return _params(found.value)


def of_fleet(raw: dict[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a parameter file; a public set replaces its schema, split and lengths of time.

    A fleet of this machine only has its own name, so no commit's ``source`` measures it.
    """
    if about.get("local"):
        raw = raw | {"source": about["source"]}
    brings = about.get("brings")
    if brings is None:
        return raw
    from model.common import time_scaling  # it needs pandas, and a slip is to be found before that is imported

    scaled = time_scaling.scale(raw, brings["history_hours"], brings["schema"]["sampling_minutes"])
    return scaled | {"schema": brings["schema"], "split": scaled["split"] | brings["split"]}


def parse(raw: dict[str, Any], path: Path | None = None) -> Params:
    """Check the content of a parameter file, which errors call ``path``, by default ``PARAMS``.

    Raises:
        ParamsError: it has slips.
    """
    if refused := slips.check(raw):
        raise ParamsError(path or PARAMS, [(None, str(slip)) for slip in refused])
    return _params(raw)


def _params(raw: dict[str, Any]) -> Params:
    """Return checked content with its defaults."""
    sections = {name: dict(raw[name]) for name in SECTIONS}
    sections["split"].setdefault("prefix", PREFIX)
    return Params(
        source=str(raw["source"]),
        schema=Schema.from_dict(raw["schema"]),
        columns=raw["columns"] or {},
        files=reading.check_files(raw.get("files")),
        read=reading.check(raw.get("read")),
        features=raw["features"],
        seed=raw["seed"],
        raw=raw,
        **sections,
    )
