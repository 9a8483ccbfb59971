"""The shard folder: its run record, and the shards in it that are sealed."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from labelgen.errors import LabelgenError
from labelgen.files import Partial, partials_in, write_csv, write_json
from labelgen.progress import count_text
from labelgen.shards.claims import is_claimed
from labelgen.shards.generations import (
    ROWS_SUFFIX,
    in_order,
    kept_rows,
    read_rows,
    rows_file,
    set_of_generation,
)
from labelgen.shards.plan import ShardPlan, plan_set
from labelgen.shards.seal import (
    FORMAT,
    FORMAT_VERSION,
    Failure,
    failures_of,
    fitting_seal,
    is_shard_name,
    read_seal,
    set_of,
    shard_name,
)
from labelgen.shards.settings import ExtractSettings, config_digest, software_versions
from labelgen.video.manifest import ManifestRow, rows_digest, write_manifest

RUN_FILE = "run.json"
FAILURES_FILE = "failures.csv"
# What the run record says set by set.
_BY_SET = ("plan", "manifests", "rows")


def check_goes_on(folder: Path, *, settings: ExtractSettings, plans: Sequence[ShardPlan]) -> None:
    """Raise `LabelgenError` where a run may not go on with what a folder was begun with."""
    found = recorded(folder)
    if found:
        _check_same_run(folder, found, _record(settings, plans))


def known_rows(folder: Path) -> dict[str, list[ManifestRow]]:
    """Return the rows that a folder's shards are planned of, by generation; none if it is new.

    Raises
    ------
    LabelgenError
        If they, or the run record, are damaged.
    """
    return read_rows(folder, recorded(folder))


def recorded(folder: Path) -> dict[str, Any]:
    """Return the run record of a shard folder, empty if it is new; errors as of `read_run`."""
    return read_run(folder) if (folder / RUN_FILE).exists() else {}


def open_run(
    folder: Path,
    *,
    settings: ExtractSettings,
    plans: Sequence[ShardPlan],
    alone: bool | None,
    retry: bool = False,
    dropped: Collection[str] = (),
) -> list[ShardPlan]:
    """Record a run in its folder, or check that it goes on with the recorded one.

    What an earlier run was writing when it was killed is deleted. Where this one is not known to be
    `alone` in the folder (None: nobody knows), that is only what processes of this machine left.
    With `retry`, shards do not count as there that hold videos whose failure may pass. Generations
    that are `dropped` are forgotten.

    Returns
    -------
    list of ShardPlan
        The shards that are not there yet, sealed, and made of the same rows and settings.

    Raises
    ------
    LabelgenError
        If the folder was begun with other settings, versions or videos, names what differs; if
        sealed shards lie in it that its record does not know, and the plans neither; or if others
        may be making what is to be dropped.
    """
    record = _record(settings, plans)
    found = recorded(folder)
    earlier = _without(found, dropped)
    _check_same_run(folder, earlier or record, record)
    _check_strays(folder, found.get("plan", {}), plans, record["config_hash"])
    if dropped and alone is False:
        raise LabelgenError(
            f"the rows of {in_order(dropped)[0]} in {folder} are gone or changed, and another run "
            "may be making its shards; wait for it, or list what was there"
        )
    # Before anything is written, since what is left over may be what fills the disk.
    _remove_left_over(folder, alone=alone)
    for key in _BY_SET:
        record[key] = earlier.get(key, {}) | record[key]
    _write_rows(folder, plans, record)
    if record != found:
        write_json(folder / RUN_FILE, record)
    _forget(folder, set(dropped), record)
    config_hash = record["config_hash"]
    return [plan for plan in plans if not _is_done(folder, plan, config_hash, retry=retry)]


def _without(record: dict[str, Any], dropped: Collection[str]) -> dict[str, Any]:
    kept = {
        key: {name: value for name, value in record[key].items() if name not in dropped}
        for key in _BY_SET
        if key in record
    }
    return record | kept


def _forget(folder: Path, dropped: Collection[str], record: Mapping[str, Any]) -> None:
    for name in dropped:
        print(
            f"{name} in {folder} is dropped: its rows are gone or changed, and it has no shard yet",
            file=sys.stderr,
        )
        if name not in record["plan"]:
            rows_file(folder, name).unlink(missing_ok=True)


def _write_rows(folder: Path, plans: Sequence[ShardPlan], record: Mapping[str, Any]) -> None:
    """Keep the rows of each set beside its shards, with the frame counts that its plan is of."""
    for name, rows in _rows_by_set(plans).items():
        if kept_rows(folder, name, record) is None:
            write_manifest(rows, rows_file(folder, name))


def _rows_by_set(plans: Sequence[ShardPlan]) -> dict[str, list[ManifestRow]]:
    rows: dict[str, list[ManifestRow]] = {}
    for plan in plans:
        rows.setdefault(plan.set_name, []).extend(plan.rows)
    return rows


def _check_same_run(folder: Path, earlier: dict[str, Any], record: dict[str, Any]) -> None:
    differing = [
        *_differences("", earlier["config"], record["config"]),
        *_differences("versions.", earlier["versions"], record["versions"]),
    ]
    if differing:
        raise LabelgenError(
            f"{folder} was begun with other settings; choose another --out. "
            f"Differing (there, now): {'; '.join(differing)}"
        )
    # Another split may join the folder; one that is there already must not change.
    changed = {
        name
        for key in _BY_SET
        for name, now in record[key].items()
        if earlier.get(key, {}).get(name, now) != now
    }
    if changed:
        raise LabelgenError(
            f"{folder} was begun with other videos, or other lengths of them, in "
            f"{', '.join(in_order(changed))}; list those again, or choose another --out"
        )


def _check_strays(
    folder: Path, recorded_plan: Collection[str], plans: Sequence[ShardPlan], config_hash: str
) -> None:
    """Refuse to work among sealed shards that the record does not know, and the plans neither."""
    planned = {plan.file: plan for plan in plans}
    sets = {set_of_generation(plan.set_name) for plan in plans}
    sealed = [
        (file, seal)
        for file in shard_files(folder)
        if set_of(file)[0] not in recorded_plan and (seal := read_seal(file))
    ]
    for file, seal in sealed:
        # What other sets hold is not asked for now, but it may be with another manifest.
        plan = planned.get(file.name)
        ours = set_of_generation(set_of(file)[0]) in sets
        fits = plan and seal["manifest_sha256"] == rows_digest(plan.rows)
        if seal["config_hash"] != config_hash or (ours and not fits):
            raise LabelgenError(
                f"{folder} holds {count_text(len(sealed), 'sealed shard')} that no {RUN_FILE} "
                f"knows, and {file.name} is of other videos or other settings than are asked for; "
                f"put a copy of {RUN_FILE} back, ask for what was made, or choose another --out"
            )


def planned_seal(folder: Path, plan: ShardPlan, config_hash: str) -> dict[str, Any] | None:
    """Return the seal of a planned shard, None if none of its rows and settings is there."""
    return fitting_seal(
        folder / plan.file, config_hash=config_hash, manifest_sha256=rows_digest(plan.rows)
    )


def _is_done(folder: Path, plan: ShardPlan, config_hash: str, *, retry: bool) -> bool:
    seal = planned_seal(folder, plan, config_hash)
    again = retry and seal and any(failure.may_pass for failure in failures_of(seal))
    return seal is not None and not again


def _record(settings: ExtractSettings, plans: Sequence[ShardPlan]) -> dict[str, Any]:
    rows = _rows_by_set(plans)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": settings.as_dict(),
        "config_hash": settings.digest(),
        "versions": software_versions(),
        "plan": dict(Counter(plan.set_name for plan in plans)),
        "manifests": {name: rows_digest(of_set) for name, of_set in rows.items()},
        "rows": {name: rows_digest(of_set, frames=True) for name, of_set in rows.items()},
    }


def _differences(prefix: str, there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    differing = []
    methods = {there.get("method"), now.get("method")}
    # Another method has other parameters, of which none need be told.
    for key in ["method"] if len(methods) > 1 else sorted({*there, *now}):
        old, new = there.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            differing += _differences(f"{prefix}{key}.", old, new)
        elif old != new:
            differing.append(f"{prefix}{key} ({_short(old)}, {_short(new)})")
    return differing


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 16 else f"{text[:12]}..."


def read_run(folder: Path) -> dict[str, Any]:
    """Return the run record of a shard folder.

    Raises
    ------
    LabelgenError
        If it is absent, damaged or of a later version.
    """
    file = folder / RUN_FILE
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        found = record["format"], record["format_version"]
        if found == (FORMAT, FORMAT_VERSION) and not _is_whole(record):
            found = None, None
    except (OSError, ValueError, KeyError, TypeError):
        found = None, None
    if found[0] != FORMAT:
        raise LabelgenError(f"{file} is damaged or is no run record; extract into a new folder")
    if found[1] != FORMAT_VERSION:
        raise LabelgenError(
            f"{file} is of format version {found[1]}; this program reads {FORMAT_VERSION}: "
            "use the one that wrote it"
        )
    return record


def _is_whole(record: dict[str, Any]) -> bool:
    parts = ("config", "versions", "plan", "manifests")
    return (
        all(isinstance(record.get(part), dict) for part in parts)
        and isinstance(record.get("rows", {}), dict)
        and all(isinstance(total, int) for total in record["plan"].values())
        and "config_hash" in record
    )


def find_shard_folder(path: Path) -> Path:
    """Return the shard folder at a path: the folder itself, or the only one directly below it.

    Raises
    ------
    LabelgenError
        If there is none, or there are several.
    """
    if (path / RUN_FILE).exists():
        return path
    if path.is_file():
        raise LabelgenError(f"{path} is a file; name the folder of shards that holds {RUN_FILE}")
    below = sorted(file.parent for file in path.glob(f"*/{RUN_FILE}"))
    if len(below) == 1:
        return below[0]
    if below:
        raise LabelgenError(f"{path} holds several shard folders; name one of {_listed(below)}")
    lost = shard_files(path)
    if lost:
        raise LabelgenError(
            f"{path} holds {count_text(len(lost), 'shard')} and no {RUN_FILE}; put a copy of it "
            "back, or run the same extract command again"
        )
    raise LabelgenError(
        f"{path} holds no shards ({RUN_FILE} is absent); make some with `labelgen extract --out`"
    )


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))


def shard_files(folder: Path) -> list[Path]:
    """Return the shards of a folder, sealed or not, in order."""
    return sorted(file for file in folder.glob("*.h5") if is_shard_name(file.name))


def planned_files(folder: Path, run: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Return the shards that a run record plans, in order, by the name of their generation."""
    plan = run["plan"]
    return {
        name: [folder / shard_name(name, number, plan[name]) for number in range(plan[name])]
        for name in in_order(plan)
    }


def planned_digests(folder: Path, run: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of the rows that each planned shard is to hold, by its name.

    Shards of rows that are lost, or that an earlier version did not keep, are not there.

    Raises
    ------
    LabelgenError
        If the settings of the record are not those that it has the hash of.
    """
    if config_digest(run["config"]) != run["config_hash"]:
        raise LabelgenError(
            f"{folder / RUN_FILE} is damaged: its settings do not fit its config_hash; put a copy "
            "of it back, or extract into a new folder"
        )
    settings = ExtractSettings(
        clip_stride=run["config"]["clip_stride"], clips_per_shard=run["config"]["clips_per_shard"]
    )
    return {
        plan.file: rows_digest(plan.rows)
        for name in run["plan"]
        for plan in plan_set(kept_rows(folder, name, run) or [], set_name=name, settings=settings)
    }


def remove_partials_of(folder: Path, process: int) -> None:
    """Delete what a process of this machine, which has ended, was writing in a folder."""
    _remove_partials(folder, lambda partial: partial.process == process)


def remove_dead_partials(folder: Path) -> None:
    """Delete what processes of this machine were writing in a folder when they ended."""
    _remove_partials(folder, lambda partial: partial.is_dead)


def _remove_left_over(folder: Path, *, alone: bool | None) -> None:
    # Somebody else who may be writing must not be disturbed; a worker of a cluster has a claim.
    def is_left(partial: Partial) -> bool:
        claimed = is_claimed(folder / f"{Path(partial.file).stem}.h5")
        return partial.is_dead or (bool(alone) and not claimed)

    _remove_partials(folder, is_left)


def _remove_partials(folder: Path, wanted: Callable[[Partial], bool]) -> None:
    for file, partial in partials_in(folder):
        if _is_ours(partial.file) and wanted(partial):
            file.unlink(missing_ok=True)


def _is_ours(name: str) -> bool:
    # A seal is named like its shard.
    of_shard = name.endswith((".h5", ".json")) and is_shard_name(f"{Path(name).stem}.h5")
    return name in (RUN_FILE, FAILURES_FILE) or name.endswith(ROWS_SUFFIX) or of_shard


def close_run(folder: Path, *, alone: bool | None, sets: Collection[str]) -> list[Failure]:
    """Delete what is left half-written, and gather the failures of all planned shards.

    Parameters
    ----------
    folder : Path
    alone : bool or None
        As in `open_run`.
    sets : collection of str
        Names of the sets whose failures are wanted.

    Returns
    -------
    list of Failure
        Those of `sets`. ``failures.csv`` now lists those of all sets; if it cannot be written, that
        is said: the seals hold them, and the next run writes them.
    """
    failures: dict[str, list[Failure]] = {}
    for name, files in planned_files(folder, read_run(folder)).items():
        of_set = failures.setdefault(set_of_generation(name), [])
        for seal in filter(None, map(read_seal, files)):
            of_set += failures_of(seal)
    try:
        _remove_left_over(folder, alone=alone)
        _write_failures(folder / FAILURES_FILE, failures)
    except OSError as error:
        print(f"{folder / FAILURES_FILE} could not be written: {error.strerror}", file=sys.stderr)
    return [failure for name in sets for failure in failures[name]]


def _write_failures(file: Path, failures: Mapping[str, Sequence[Failure]]) -> None:
    rows = [
        [_no_formula(cell) for cell in (*failure, name)]
        for name, of_set in failures.items()
        for failure in of_set
    ]
    write_csv(file, [(*Failure._fields, "set"), *rows])


def _no_formula(cell: str | int) -> str | int:
    """Return a cell that a spreadsheet takes for text: a leading quote stands before formulas."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell
