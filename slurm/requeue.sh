# Sourced by launch/train.sh: which job goes back into the queue after which ending.
#
#   the attempt's end, by exit.json               the job
#   done, stopped                                 is over
#   preempted, or cut off by Slurm's signal,      goes on; failures are counted from 0 again
#     with a newer checkpoint
#   the same without a newer checkpoint           goes on; counts as a failure
#   failed, with "retry": false                   is over: settings, data or a bad node stay so
#   refused, as another process owns run_dir      is over
#   failed, nan, or no exit.json (killed ranks,   goes on if the attempt left a newer checkpoint, at
#     a dead node, a disk that was full at the    most SDEVID_MAX_FAILURES (5) times in a row
#     end)
#
# `attempts` in the run's folder remembers this over restarts of a job and the jobs of a chain.
# Needs `run_dir`; SDEVID_CHAIN is set by launch/chain.sh.

series=${SDEVID_CHAIN:-$SLURM_JOB_ID} # attempts that follow each other by themselves

# Anyone who may write to run_dir may write `attempts`: a word of it is only ever a word or a number.
recall() { LC_ALL=C sed -n -E "s/^$1 ([A-Za-z0-9_.-]{1,80})\$/\1/p" "$run_dir/attempts" 2>/dev/null | head -n 1 || true; }
recall_number() {
  local number
  number=$(LC_ALL=C sed -n -E "s/^$1 ([0-9]{1,15})\$/\1/p" "$run_dir/attempts" 2>/dev/null | head -n 1 || true)
  echo "$((10#${number:-0}))"
}

# Where the disk is full, the next attempt finds this one as `running` and judges it by exit.json.
remember() { # VERDICT: running, cut, again, over
  if ! {
    mkdir -p "$run_dir" &&
      printf '%s %s\n' series "$series" verdict "$1" code "$code" failures "$failures" \
        began "$began" >"$run_dir/.attempts.tmp" &&
      mv "$run_dir/.attempts.tmp" "$run_dir/attempts"
  } 2>/dev/null; then
    echo "$run_dir/attempts cannot be written; make room there"
    rm -f "$run_dir/.attempts.tmp" || true
  fi
}

newest_step() {
  local step
  step=$(LC_ALL=C sed -n -E 's/.*step_([0-9]{1,15})$/\1/p' "$run_dir/latest" 2>/dev/null | head -n 1 || true)
  echo "$((10#${step:-0}))"
}

# exit.json speaks of this attempt only if it is younger than `attempts`, written at its beginning,
# and names no other attempt.
exit_field() {
  local attempt
  [ "$run_dir/exit.json" -nt "$run_dir/attempts" ] || [ ! -e "$run_dir/attempts" ] || return 0
  attempt=$(sed -n -E 's/.*"attempt": *"([^"]*)".*/\1/p' "$run_dir/exit.json" 2>/dev/null || true)
  [ -z "$attempt" ] || [ -z "${SDEVID_ATTEMPT:-}" ] || [ -n "${judging_former:-}" ] ||
    [ "$attempt" = "$SDEVID_ATTEMPT" ] || return 0
  sed -n -E "s/.*\"$1\": *\"?([a-z]+)\"?[,}].*/\1/p" "$run_dir/exit.json" 2>/dev/null || true
}

# Whether the trainer of this attempt found that another process owns run_dir.
refused() {
  [ -n "${SDEVID_ATTEMPT:-}" ] &&
    grep -qs "\"attempt\": *\"$SDEVID_ATTEMPT\"" "$run_dir/exit-refused.json"
}

exit_message() {
  printf '%b' "$(sed -n -E 's/.*"message": *"(.*)"[,}].*/\1/p' "$run_dir/exit.json" | sed 's/\\"/"/g')"
}

# Sets verdict (again or over), code, failures, and why, in words.
judge() { # SIGNALLED, empty if Slurm sent no signal
  local reason most=${SDEVID_MAX_FAILURES:-5}
  reason=$(exit_field reason)
  why=${reason:-no exit.json was written} verdict=again code=1
  if refused; then verdict=over code=2 why="run_dir is in use by another process"; return; fi
  case ${reason:-${1:+preempted}} in
    done) verdict=over code=0 ;;
    stopped) verdict=over code=3 ;;
    preempted)
      code=3
      if [ "$(newest_step)" -gt "$began" ]; then failures=0; return; fi
      failures=$((failures + 1))
      if [ "$failures" -gt "$most" ]; then
        verdict=over why+=", $failures times in a row without a newer checkpoint (SDEVID_MAX_FAILURES is $most)"
      fi
      ;;
    *)
      failures=$((failures + 1))
      [ "$reason" != nan ] || code=4
      if [ "$(exit_field retry)" = false ]; then
        verdict=over why+="; trying again would not help: $(exit_message)"
        [ "$code" = 4 ] || code=2
      elif [ "$(newest_step)" -le "$began" ]; then
        verdict=over why+=", and no checkpoint after step $began was made in this attempt"
      elif [ "$failures" -gt "$most" ]; then
        verdict=over why+=", $failures times in a row (SDEVID_MAX_FAILURES is $most)"
      else
        why+=" (failure $failures of at most $most in a row), after a checkpoint of step $(newest_step)"
      fi
      ;;
  esac
}

# Ends the script where the series of attempts is over already.
begin_attempt() {
  failures=0 code=1 verdict=again began=$(newest_step)
  if [ "$(recall series)" = "$series" ]; then
    failures=$(recall_number failures) code=$(recall_number code) verdict=$(recall verdict)
    case $verdict in
      over) echo "the run is over already: $run_dir/exit.json" ;;
      running | cut)
        began=$(recall_number began)
        if [ "$verdict" = cut ]; then judging_former=1 judge signalled; else judging_former=1 judge ""; fi
        echo "the attempt before ended: $why"
        ;;
    esac
    if [ "$verdict" = over ]; then
      remember over
      exit "$code"
    fi
    began=$(newest_step)
  fi
  rm -f "$run_dir/exit.json"
  remember running
}

# Slurm ends the job: by scancel, `scontrol requeue` or preemption, which are no failures of the run,
# or since a node of it is dead, which is one.
cut_off() {
  if ! scontrol -o show node "$SLURM_JOB_NODELIST" | grep -q -E ' State=(DOWN|[A-Z+]*\*)'; then
    remember cut
  fi
  exit 143
}
