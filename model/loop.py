"""Show the whole loop on a simulated fleet: serve, log, feed back, drift, retrain, propose, merge, serve again.

A first model learns from the fleet's history and is served on a port of this machine. Ninety days of the fleet's life
go through it over HTTP, as fast as it answers; reports of failures come late. On one of these days the world moves.
Drift and live quality show it, the log's newest version trains the next model, the gate compares the two, and the pull
request that would be opened on GitHub is printed, merged and served.

Everything runs in a copy of this repository below --out, with the same commands that a person or a workflow runs, so
neither the data pin nor the champion of this checkout is touched. The page is --out/index.html. Exits 1 where the
second model is not proven better.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from closedloop.data import sources
from closedloop.report import loop_page
from model.common import cli, loop_story, params, starting_params
from model.common.loop_copy import Copy
from model.common.loop_life import SMALL, Life, LifePlan

SCENES = 9
TITLE = "Retrain on newer data"  # of the pull request


class Show:
    """The scenes in their order; ``found`` collects what the page tells."""

    def __init__(self, copy: Copy, life: Life, asked: params.Params) -> None:
        self.copy, self.life, self.plan, self.asked = copy, life, life.plan, asked
        self.first, self.second = copy.build / "first", copy.build / "second"
        self.found: dict[str, Any] = {}
        self._number = 0

    def scene(self, title: str) -> None:
        """Say which scene begins."""
        self._number += 1
        cli.say(f"{self._number} of {SCENES}: {title}")

    def live(self, bundle: Path, start: int, end: int, *, everything: bool = False) -> None:
        """Send the requests and the feedback of some days to a bundle, and have its log shipped."""
        with self.copy.served(bundle) as client:
            asked = client.post_all("/score", self.life.requests(start, end))
            fed = client.post_all("/feedback", self.life.reports(start, end, everything=everything))
        self.found["requests"] = self.found.get("requests", 0) + asked
        self.found["machines_asked"] = self.found.get("machines_asked", 0) + self.plan.machines * (
            (end - start) * 24 // self.plan.every_hours
        )
        cli.say(f"  days {start} to {end}: {asked:,} requests answered and logged, {fed} reports")

    def train_first(self) -> None:
        """Pin the history, serve a model of it for some days, pin the log beside it, and train the first model."""
        copy = self.copy
        self.scene(f"{self.plan.machines} machines with {self.plan.history} days of history train the first model")
        copy.make()
        sources.write_tables(self.life.history(), self.asked.schema, copy.folder / "history")
        self._pin("--source", "history")
        copy.run("model.train", "--quick")
        shutil.copytree(copy.build / "bundle", copy.build / "zeroth")
        self.scene("the service opens; the log that it writes joins the pinned data")
        self.live(copy.build / "zeroth", 0, self.plan.pinned)
        self._pin("--source", "build/sink", "--add")
        copy.commit("Pin the history and the log")
        for command in ("train", "predict", "evaluate"):
            copy.run(f"model.{command}", *(["--quick"] if command != "predict" else []))
        shutil.copytree(copy.build / "bundle", self.first)
        promise = copy.build / "promise"
        promise.mkdir()
        for name in ("metrics.json", "decision.json"):
            shutil.copy(copy.build / name, promise)
        self.found["promise"] = _read(promise / "metrics.json")
        verdict = _read(promise / "decision.json")["verdict"]
        figures = self.found["promise"]["failure"]
        cli.say(f"  {verdict}: it foresees {figures['event_recall']:.0%} of the failures of machines it never saw")

    def _pin(self, *words: str) -> None:
        self.copy.run("model.data_pin", *words)
        self.copy.run("model.validate", "--pin")

    def serve_first(self) -> None:
        """Serve the first model until people look, and on until it is retrained."""
        plan, copy = self.plan, self.copy
        self.scene(f"the first model is served; on day {plan.moved} new controllers are fitted, and the world moves")
        self.live(self.first, plan.pinned, plan.looked)
        self.scene(f"day {plan.looked}: people look")
        copy.run("model.data", "--source", "build/sink")
        copy.run("model.drift", "--bundle", str(self.first))
        self.found["drift"] = _read(copy.build / "drift/drift.json")
        moved = sorted({test["subject"] for test in self.found["drift"]["moved"]})
        cli.say(f"  make drift: {self.found['drift']['verdict']}: {', '.join(moved) or 'nothing'}")
        copy.run("model.monitor", "--log", "build/sink", "--promised", "build/promise")
        self.found["monitor"] = _read(copy.build / "monitor/monitor.json")
        issue = self.found["monitor"]["issue"]
        reasons = self.found["monitor"]["models"][-1]["decision"]["reasons"]
        cli.say(f"  make monitor: {'; '.join(reasons) or 'as promised'} (issue: {issue['action']})")
        for name in ("drift", "monitor"):
            shutil.copytree(copy.build / name, copy.build / f"day-{plan.looked}-{name}")
        self.scene("life goes on, and late reports arrive")
        self.live(self.first, plan.looked, plan.retrained)

    def retrain(self) -> None:
        """Train the next model on the newest log and judge it; that lets it answer last week's requests, too."""
        copy = self.copy
        self.scene(f"day {self.plan.retrained}: make retrain")
        copy.run("model.retrain", "--log", "build/sink", "--quick")
        evidence = copy.build / "evidence"
        self.found["decision"] = decision = _read(evidence / "decision.json")
        shutil.copytree(copy.build / "bundle", self.second)
        cli.say(f"  {decision['verdict']}: {decision['reason']}")
        if decision["verdict"] != "better":
            raise cli.RefusedError(
                f"the second model is {decision['verdict']}, so nothing is proposed; {evidence} says why"
            )
        self.found["replay"] = _read(evidence / "replay.json")
        alarms = self.found["replay"]["alarms"]
        cli.say(f"  last week's requests again: {alarms['served']} alarms before, {alarms['challenger']} with it")

    def propose(self) -> None:
        """Print the pull request that a workflow would open, and merge it."""
        copy, evidence = self.copy, self.copy.build / "evidence"
        self.scene("the pull request (a stand-in for GitHub: printed, and merged here)")
        copy.git("checkout", "--quiet", "-b", "retrain")
        shutil.copy(evidence / "data.lock.json", copy.folder / "model/data.lock.json")
        copy.commit(TITLE)
        body = "\n".join((evidence / name).read_text(encoding="utf-8") for name in ("summary.md", "replay.md"))
        diff = copy.git("diff", "main", "retrain")
        files = copy.git("diff", "--name-only", "main", "retrain").split()
        self.found["pull_request"] = {"title": TITLE, "body": body, "diff": diff, "files": files}
        print(f"\n{'─' * 100}\nPull request: {TITLE}\nretrain → main, changes {', '.join(files)}\n")
        print(f"{body}\n{diff}\n{'─' * 100}\n", flush=True)
        copy.git("checkout", "--quiet", "main")
        copy.git("merge", "--quiet", "--no-ff", "--message", "Merge the retraining", "retrain")

    def serve_second(self) -> None:
        """Serve the second model to the end."""
        self.scene("the second model is served")
        self.live(self.second, self.plan.retrained, self.plan.end, everything=True)

    def tell(self, out: Path) -> None:
        """Write the page."""
        self.scene("before and after")
        story = loop_story.tell(self.copy, self.life, self.asked, self.found)
        cli.write_json(out / "loop.json", story.content)
        loop_page.write(out / "index.html", story.content, loop_story.pictures(story, self.life))


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def main(words: list[str]) -> None:
    """Run all scenes and write the page.

    Raises:
        RefusedError: the second model is not proven better.
    """
    flags = argparse.ArgumentParser(
        "python -m model.loop", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--out", type=Path, default=cli.BUILD / "loop", help="folder to write to (default: %(default)s)")
    flags.add_argument("--small", action="store_true", help="a smaller fleet and fewer days, as the tests run it")
    args = flags.parse_args(words)
    plan = SMALL if args.small else LifePlan()
    asked = params.load(starting_params.path())  # of the simulated fleet, where another was adopted too
    show = Show(Copy(args.out / "copy"), Life(plan, asked.schema), asked)
    for scene in (show.train_first, show.serve_first, show.retrain, show.propose, show.serve_second):
        scene()
    show.tell(args.out)
    print(f"better: {show.found['decision']['reason']}")
    print(f"page: {args.out / 'index.html'}")


if __name__ == "__main__":
    cli.main(main)
