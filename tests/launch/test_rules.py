"""slurm/requeue.sh's rules, read one attempt after the other."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ATTEMPT = 'source slurm/requeue.sh; begin_attempt; eval "$1"; judge "$2"; remember "$verdict"; '
ATTEMPT += 'echo "$verdict $code $why"'


@dataclass
class Attempts:
    """Attempts at the run in `run`, one after the other."""

    run: Path
    series: str = "job7"

    def attempt(self, happens: str = ":", *, signalled: str = "", most: int = 5) -> str:
        """What is decided after a shell command that stands for the training."""
        environment = {"PATH": os.environ["PATH"], "run_dir": str(self.run)}
        environment |= {"SDEVID_CHAIN": self.series, "SDEVID_MAX_FAILURES": str(most)}
        done = subprocess.run(
            ["bash", "-euc", ATTEMPT, "-", happens, signalled],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.stderr
        return done.stdout.strip() or f"ended with {done.returncode}"

    def ends(self, reason: str, **more: object) -> str:
        """A command that leaves such an exit.json."""
        text = json.dumps({"reason": reason, "step": 3, "retry": True} | more)
        return f"cat >{self.run}/exit.json <<'END'\n{text}\nEND\n"

    def saves(self, step: int) -> str:
        """A command that leaves a checkpoint of such a step."""
        return f"echo checkpoints/step_{step} >{self.run}/latest\n"


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    return Attempts(tmp_path / "run")


@pytest.mark.parametrize(("reason", "code"), [("done", 0), ("stopped", 3)])
def test_run_that_ended_well_is_over(attempts, reason, code):
    assert attempts.attempt(attempts.ends(reason)) == f"over {code} {reason}"
    assert attempts.attempt().splitlines()[0].startswith("the run is over already")


@pytest.mark.parametrize("signalled", ["", "yes"])
def test_preempted_run_goes_on_while_it_saves(attempts, signalled):
    for step in range(1, 9):
        happens = attempts.saves(step) + attempts.ends("preempted")
        assert attempts.attempt(happens, signalled=signalled, most=2) == "again 3 preempted"


@pytest.mark.parametrize("end", ["preempted", None])
def test_preemption_without_a_newer_checkpoint_is_a_failure(attempts, end):
    happens = attempts.ends(end) if end else ":"  # None: killed before its handler was there
    for _ in range(2):
        assert attempts.attempt(happens, signalled="yes", most=2).startswith("again")
    decided = attempts.attempt(happens, signalled="yes", most=2)
    assert decided.startswith("over 3")
    assert "3 times in a row without a newer checkpoint (SDEVID_MAX_FAILURES is 2)" in decided


@pytest.mark.parametrize(
    "word",
    [
        "a[$(touch {mark})0]",
        "$(touch {mark})",
        "`touch {mark}`",
        "x=1,a[$(touch {mark})]",
        "BASH_ENV[$(touch {mark})]",
        "-1; touch {mark}",
    ],
)
@pytest.mark.parametrize("name", ["failures", "code", "began", "verdict", "series"])
def test_no_word_of_attempts_is_ever_run(attempts, name, word, tmp_path):
    attempts.run.mkdir()
    mark = tmp_path / "executed"
    words = {"series": "job7", "verdict": "running", "code": "1", "failures": "0", "began": "0"}
    words[name] = word.format(mark=mark)
    lines = "".join(f"{key} {value}\n" for key, value in words.items())
    (attempts.run / "attempts").write_text(lines, encoding="utf-8")
    (attempts.run / "latest").write_text(f"checkpoints/step_{words[name]}\n", encoding="utf-8")
    attempts.attempt(attempts.saves(9) + attempts.ends("failed"))
    assert not mark.exists()


@pytest.mark.parametrize("number", ["08", "0099", "9" * 40, "", "-3", "1e9"])
def test_numbers_of_attempts_are_decimal_or_nothing(attempts, number):
    attempts.run.mkdir()
    lines = f"series job7\nverdict running\ncode {number}\nfailures {number}\nbegan 7\n"
    (attempts.run / "attempts").write_text(lines, encoding="utf-8")
    (attempts.run / "latest").write_text("checkpoints/step_200\n", encoding="utf-8")
    decided = attempts.attempt(attempts.ends("done")).splitlines()
    counted = {"08": 9, "0099": 100}.get(number, 1)
    if counted > 5:
        assert decided == [
            f"the attempt before ended: no exit.json was written, {counted} times in "
            "a row (SDEVID_MAX_FAILURES is 5)"
        ]
    else:
        assert f"failure {counted} of at most 5" in decided[0]
        assert decided[1] == "over 0 done"


def test_exit_json_of_another_attempt_does_not_count(attempts):
    other = attempts.ends("done", attempt="job9-0")
    assert attempts.attempt("export SDEVID_ATTEMPT=job7-0\n" + other).startswith("over 1 no exit")
    mine = attempts.ends("done", attempt="job7-0")
    again = Attempts(attempts.run, series="job8")
    assert again.attempt("export SDEVID_ATTEMPT=job7-0\n" + mine) == "over 0 done"


def test_refused_attempt_is_over_with_the_users_code(attempts):
    refuse = f"""export SDEVID_ATTEMPT=job7-0
echo '{{"reason": "refused", "attempt": "job7-0"}}' >{attempts.run}/exit-refused.json
"""
    decided = attempts.attempt(refuse + attempts.ends("preempted", attempt="job6-0"))
    assert decided == "over 2 run_dir is in use by another process"


def test_signalled_run_that_could_not_save_in_time_goes_on(attempts):
    assert attempts.attempt(signalled="yes").startswith("again")


@pytest.mark.parametrize("reason", ["failed", "nan", None])
def test_failed_run_goes_on_only_after_progress(attempts, reason):
    end = attempts.ends(reason) if reason else ":"
    assert attempts.attempt(attempts.saves(9) + end).startswith("again")
    assert attempts.attempt(attempts.saves(10) + end).startswith("again")
    decided = attempts.attempt(end)
    assert decided.startswith("over 4" if reason == "nan" else "over 1")
    assert "no checkpoint after step 10" in decided


def test_failures_in_a_row_are_limited_until_a_clean_end(attempts):
    fails = [attempts.saves(step) + attempts.ends("failed") for step in range(1, 8)]
    assert attempts.attempt(fails[0], most=2).startswith("again")
    assert attempts.attempt(fails[1], most=2).startswith("again")
    clean = attempts.saves(3) + attempts.ends("preempted")
    assert attempts.attempt(clean, most=2).startswith("again")
    assert attempts.attempt(fails[3], most=2).startswith("again")
    assert attempts.attempt(fails[4], most=2).startswith("again")
    decided = attempts.attempt(fails[5], most=2)
    assert decided.startswith("over 1")
    assert "3 times in a row (SDEVID_MAX_FAILURES is 2)" in decided


def test_user_error_ends_the_job_whatever_its_progress(attempts):
    message = 'run_dir is "reason": "done", "retry": true\nand of two lines'
    end = attempts.saves(9) + attempts.ends("failed", retry=False, message=message)
    assert attempts.attempt(end) == f"over 2 failed; trying again would not help: {message}"


def test_attempt_that_vanished_is_judged_by_the_next(attempts):
    assert attempts.attempt("exit 3") == "ended with 3"
    ended = attempts.attempt(attempts.ends("done"))
    assert "the attempt before ended: no exit.json was written, and no checkpoint" in ended
    assert "over" not in ended


def test_on_a_full_disk_the_next_attempt_judges(attempts):
    full = 'ln -s /dev/full "$run_dir/.attempts.tmp"\n'
    decided = attempts.attempt(attempts.saves(9) + attempts.ends("failed") + full).splitlines()
    assert decided[0] == f"{attempts.run}/attempts cannot be written; make room there"
    assert decided[1].startswith("again 1 failed (failure 1 of at most 5")
    ended = attempts.attempt(attempts.saves(10) + attempts.ends("failed"))
    assert "the attempt before ended: failed (failure 1 of at most 5" in ended
    assert "again 1 failed (failure 2 of at most 5" in ended


def test_attempt_that_slurm_cut_off_is_no_failure(attempts):
    cut = 'SLURM_JOB_NODELIST=n0; scontrol() { echo "NodeName=n0 State=ALLOCATED "; }; cut_off'
    assert attempts.attempt(cut) == "ended with 143"
    assert attempts.attempt(attempts.ends("done")).splitlines() == [
        "the attempt before ended: no exit.json was written",
        "over 0 done",
    ]


@pytest.mark.parametrize("state", ["DOWN", "DOWN*", "ALLOCATED*", "DOWN*+DRAIN"])
def test_attempt_cut_off_by_a_dead_node_is_one(attempts, state):
    cut = f'SLURM_JOB_NODELIST=n0; scontrol() {{ echo "NodeName=n0 State={state} "; }}; cut_off'
    assert attempts.attempt(cut) == "ended with 143"
    assert "no checkpoint after step 0" in attempts.attempt(attempts.ends("done"))


def test_same_command_given_again_starts_afresh(attempts):
    attempts.attempt(attempts.ends("failed"))
    again = Attempts(attempts.run, series="job8")
    assert again.attempt(again.ends("done")) == "over 0 done"
