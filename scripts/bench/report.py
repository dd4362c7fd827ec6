#!/usr/bin/env python3
"""Prints what measure.py wrote: a table of all jobs, and whether sealrs meets its targets.

Usage: report.py RESULTS
"""

import json
import sys

MIB = 2**20
OURS = "sealrs"

# The jobs in their order; the program that a job's target compares with, and the largest ratio of their times.
JOBS = {
    "build": ("tar | zstd | tee | sha256sum", 1.3),
    "rebuild, nothing changed": None,
    "rebuild, all files touched": None,
    "rebuild, one file changed": None,
    "container images": None,
    "save": None,
    "load": None,
    "run": ("zstd -d | tar x", 1.3),
    "limits": None,
    **{
        job: target
        for registry in ("docker-registry", "sealrs's registry")
        for job, target in {
            f"push to {registry}": ("skopeo copy", 1 / 1.5),
            f"push to {registry}, nothing changed": None,
            f"pull from {registry}": ("skopeo copy", 1 / 1.5),
            f"pull from {registry}, nothing changed": None,
        }.items()
    },
}
LONGEST_UNCHANGED = 0.3
LARGEST_PEAK = 256 * MIB
LARGEST_WRITTEN = 1.05
# Jobs that make something new, whose written bytes are compared with it.
MAKING = ["build", "container images", "save", "load", "run", "pull from docker-registry"]


def quickest(samples):
    return min(samples, key=lambda sample: sample["wall"])


def ratio(jobs, job, program, what):
    """How much of `what` sealrs's quickest run took for one that the program's took."""
    return quickest(jobs[job][OURS])[what] / max(quickest(jobs[job][program])[what], 0.001)


def table(jobs):
    width = max(len(program) for programs in jobs.values() for program in programs) + 4
    columns = ["wall s", "slowest", "cpu s", "wall", "cpu", "peak MiB", "written", "result", "others"]
    print(" " * width + "".join(f"{column:>9}" for column in columns))
    for job, programs in jobs.items():
        print(job)
        for program, samples in programs.items():
            best = quickest(samples)
            ratios = [""] * 2
            if program != OURS and OURS in programs:
                ratios = [f"{ratio(jobs, job, program, what):.2f}x" for what in ("wall", "cpu")]
            cells = [
                f"{best['wall']:.2f}",
                f"{max(sample['wall'] for sample in samples):.2f}",
                f"{best['cpu']:.2f}",
                *ratios,
                f"{max(sample['peak'] for sample in samples) / MIB:.0f}",
                f"{best['written'] / MIB:.0f}",
                f"{round(best['result'] / MIB)}",
                f"{best['others']:.2f}",
            ]
            print(f"  {program:{width - 2}}" + "".join(f"{cell:>9}" for cell in cells))
    print(
        "\nEach row is the quickest of its runs; `slowest` is the other end. wall, cpu: sealrs's time divided by this row's.\n"
        "peak: the largest process of any run. written: MiB that the program made the disk write; result: MiB on disk\n"
        "that were not there before. others: cores that the rest of the machine kept busy during the run."
    )


def pair_ratios(programs, other):
    """sealrs's time divided by the other's, for the runs of the same round."""
    return [ours["wall"] / theirs["wall"] for ours, theirs in zip(programs[OURS], programs[other])]


def targets(jobs):
    """(what, measured, limit, whether it is met) for each target whose job ran."""
    for job, target in JOBS.items():
        if job in jobs and target and target[0] in jobs[job]:
            other, limit = target
            found = ratio(jobs, job, other, "wall")
            pairs = pair_ratios(jobs[job], other)
            spread = f"{found:.2f} (pairs: {min(pairs):.2f} - {max(pairs):.2f})"
            yield f"{job}: time / ({other})", spread, f"{limit:.2f}", found <= limit
    ours = {job: programs[OURS] for job, programs in jobs.items() if OURS in programs}
    for job, samples in ours.items():
        if job.endswith("nothing changed"):
            wall = quickest(samples)["wall"]
            yield f"{job}: seconds", f"{wall:.2f}", f"{LONGEST_UNCHANGED:.2f}", wall < LONGEST_UNCHANGED
    peaks = {job: max(sample["peak"] for sample in samples) for job, samples in ours.items()}
    job = max(peaks, key=peaks.get)
    yield f"peak memory, MiB ({job})", f"{peaks[job] / MIB:.0f}", f"{LARGEST_PEAK / MIB:.0f}", peaks[job] < LARGEST_PEAK
    shares = {
        job: max(sample["written"] / sample["result"] for sample in jobs[job][OURS] if sample["result"])
        for job in MAKING
        if job in jobs
    }
    if any(shares.values()):
        job = max(shares, key=shares.get)
        yield f"written / result ({job})", f"{shares[job]:.3f}", f"{LARGEST_WRITTEN:.2f}", shares[job] <= LARGEST_WRITTEN


def main():
    jobs = {job: {} for job in JOBS}
    with open(sys.argv[1], encoding="utf-8") as file:
        for line in file:
            sample = json.loads(line)
            jobs[sample["job"]].setdefault(sample["program"], []).append(sample)
    jobs = {job: programs for job, programs in jobs.items() if programs}
    table(jobs)
    print(f"\n{'target':58}{'measured':28}{'limit':8}")
    for what, measured, limit, met in targets(jobs):
        print(f"{what:58}{measured:28}{limit:8}{'met' if met else 'MISSED'}")
    loudest = max(sample["others"] for programs in jobs.values() for samples in programs.values() for sample in samples)
    if loudest > 0.25:
        print(f"\nThe machine was not quiet: other programs used up to {loudest:.1f} cores during a run, so ratios near a limit prove nothing.")


main()
