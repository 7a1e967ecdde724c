"""The one table for people, and the rows for machines (the shape of bench/src/table.rs)."""

import json
import os
import statistics

COLUMNS = (("wall", "wall", "s"), ("cpu", "processor time", "s"), ("stored", "bytes stored", "MB"), ("peak", "peak memory", "MB"))


class Results:
    """Figures of every program in every case, round by round; the first program of a case is ours."""

    def __init__(self):
        self.cases = {}

    def add(self, case, program, figures):
        """`figures`: name → number, or None where there is none."""
        rounds = self.cases.setdefault(case, {}).setdefault(program, {})
        for name, value in figures.items():
            rounds.setdefault(name, []).append(value)

    def add_measured(self, case, program, sample):
        megabytes = lambda value: None if value is None else value / 1e6
        figures = {"wall": sample["wall"], "cpu": sample["cpu_tool"] + sample["cpu_server"], "cpu_server": sample["cpu_server"]}
        self.add(case, program, {**figures, "stored": megabytes(sample["stored"]), "peak": megabytes(sample["peak"])})

    def lead(self, case):
        return next(iter(self.cases[case]))


def median(values):
    known = [value for value in values or [] if value is not None]
    return statistics.median(known) if known else None


def shown(value):
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def ratio(ours, theirs):
    return ours / theirs if ours is not None and theirs else None


def printed(results, say):
    say("| case | program | wall s | CPU s (of it the server's) | stored MB | peak MB | ours / it: wall | CPU | bytes |")
    say("|---|---|---|---|---|---|---|---|---|")
    for case, programs in results.cases.items():
        if "wall" not in programs[results.lead(case)]:
            continue
        ours = {name: median(rounds) for name, rounds in programs[results.lead(case)].items()}
        for program, rounds in programs.items():
            it = {name: median(values) for name, values in rounds.items()}
            ratios = ["" if program == results.lead(case) else shown(ratio(ours.get(name), it.get(name))) for name in ("wall", "cpu", "stored")]
            cpu = f"{shown(it['cpu'])} ({shown(it['cpu_server'])})"
            say(f"| {case} | {program} | {shown(it['wall'])} | {cpu} | {shown(it['stored'])} | {shown(it['peak'])} | {' | '.join(ratios)} |")


def printed_others(results, say):
    """Cases that are not a run of one program: lag, throughput."""
    say("\n| case | program | metric | median | ours / it |\n|---|---|---|---|---|")
    for case, programs in results.cases.items():
        lead = results.lead(case)
        if "wall" in programs[lead]:
            continue
        for program, rounds in programs.items():
            for name, values in rounds.items():
                it, ours = median(values), median(programs[lead].get(name))
                against = "" if program == lead else shown(ratio(ours, it))
                say(f"| {case} | {program} | {name} | {shown(it)} | {against} |")


def rows(results):
    """Ours (the first program of a case) against each of the others."""
    units = {key: (metric, unit) for key, metric, unit in COLUMNS}
    found = []
    for case, programs in results.cases.items():
        lead = results.lead(case)
        for program, rounds in programs.items():
            for name, theirs in rounds.items():
                if program == lead or name == "cpu_server":
                    continue
                pairs = [pair for pair in zip(programs[lead].get(name, []), theirs) if None not in pair]
                if not pairs:
                    continue
                ours, it = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
                metric, unit = units.get(name, name.rsplit(", ", 1) if ", " in name else (name, ""))
                row = {"case": f"{case}: {lead}", "metric": metric, "unit": unit, "peer": program, "ours": median(ours), "theirs": median(it)}
                row |= {"ratio": ratio(row["ours"], row["theirs"]), "rounds": len(pairs), "ours_rounds": ours, "theirs_rounds": it}
                found.append(row)
    return found


def publish(results, folder):
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/backup.json", "w") as file:
        json.dump(rows(results), file, indent=1)
