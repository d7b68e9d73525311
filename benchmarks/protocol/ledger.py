"""Which code trained a network, and how long it took: told by a file that stays beside the networks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
from filelock import FileLock
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from benchmarks import records
from benchmarks.protocol.methods import METHODS, Settings, title
from skmimood.runtime.code_digest import code_digest

NAME = "trainings.json"  # of the file, in the folder that keeps the networks
# Parameters that no result depends on, by how their names end.
_NO_MATTER = ("memory", "checkpoint_dir", "resume", "verbose", "device", "random_state", "steps")


def read_code() -> None:
    """Note commit and code as they are now: files may be edited while networks train for hours."""
    records.commit()
    for module in ("benchmarks.commands.accuracy", "benchmarks.data.sources"):
        code_digest(module)
    for method in METHODS.values():
        for step in steps_of(method.build(Settings("tiny", seed=0))):
            code_of(step)


def steps_of(estimator: BaseEstimator) -> list[BaseEstimator]:
    """Return the steps of a pipeline, or the estimator itself."""
    return [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]


def code_of(step: BaseEstimator) -> str:
    """Return the digest of the code that a step is fitted by."""
    return code_digest(type(step).__module__)


def digest(estimator: BaseEstimator, *told: Any) -> str:
    """Return a digest of an estimator's parameters, of the code of its steps, and of all else that is ``told``."""
    parameters = {
        key: value
        for key, value in estimator.get_params().items()
        if not key.endswith(_NO_MATTER) and not hasattr(value, "get_params")
    }
    return joblib.hash(repr([*told, sorted(parameters.items()), *map(code_of, steps_of(estimator))]))


def note(ledger: Path | None, step: BaseEstimator, seconds: float) -> float:
    """Note how long the fit of a network took; return the longest that it ever took: less came from the cache."""
    if ledger is None:
        return seconds
    ledger.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{ledger}.lock"):
        entries = _read(ledger)
        entry = entries.setdefault(_key(step), {"commit": records.commit(), "seconds": seconds})
        entry["seconds"] = max(entry["seconds"], seconds)
        ledger.write_text(json.dumps(entries, indent=1))
    return entry["seconds"]


def trained(ledger: Path | None, estimator: BaseEstimator) -> dict[str, str]:
    """Return the commits and digests of the code that trained an estimator's networks, else the commit of the run."""
    entries = {} if ledger is None else _read(ledger)
    networks = [step for step in steps_of(estimator) if hasattr(step, "state_")]
    commits = [entries.get(_key(step), {}).get("commit", records.commit()) for step in networks]
    return {
        "trained": " ".join(dict.fromkeys(commits or [records.commit()])),
        "trained_code": " ".join(dict.fromkeys(map(code_of, networks))),
    }


def sentence(runs: Sequence[Mapping[str, str]]) -> str:
    """Tell at which commits the networks of some runs were trained, and of which runs that is not known."""
    commits = sorted({commit for row in runs for commit in row.get("trained", "").split()})
    unproved = dict.fromkeys(title(row["method"]) for row in runs if not row.get("trained"))
    told = [f"networks trained at commit {', '.join(commits)}"] if commits else []
    if unproved:
        whose = f"those of {', '.join(unproved)}" if commits else "the networks"
        told.append(f"no record tells which code trained {whose}, so they are to be trained anew")
    return "; ".join(told)


def _key(step: Any) -> str:
    """Return a name of a network: the code that trained it and what it learnt."""
    return f"{code_of(step)}-{joblib.hash(step.state_)}"


def _read(ledger: Path) -> dict[str, dict[str, Any]]:
    return json.loads(ledger.read_text()) if ledger.exists() else {}
