# Sourced by launch/train.sh: which job goes back into the queue after which ending.
#
#   the attempt's end, by exit.json               the job
#   done, stopped                                 is over
#   preempted, or cut off by Slurm's signal       goes on; failures are counted from 0 again
#   failed, with "retry": false                   is over: settings, data or a bad node stay so
#   failed, nan, or no exit.json (killed ranks,   goes on if the attempt left a newer checkpoint, at
#     a dead node, a disk that was full at the    most SDEVID_MAX_FAILURES (5) times in a row
#     end)
#
# `attempts` in the run's folder remembers this over restarts of a job and the jobs of a chain.
# Needs `run_dir`; SDEVID_CHAIN is set by launch/chain.sh.

series=${SDEVID_CHAIN:-$SLURM_JOB_ID} # attempts that follow each other by themselves

recall() { sed -n "s/^$1 //p" "$run_dir/attempts" 2>/dev/null || true; }

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
  step=$(sed -n -E 's/.*step_([0-9]+).*/\1/p' "$run_dir/latest" 2>/dev/null || true)
  echo "${step:-0}"
}

exit_field() { sed -n -E "s/.*\"$1\": *\"?([a-z]+)\"?[,}].*/\1/p" "$run_dir/exit.json" 2>/dev/null || true; }

exit_message() {
  printf '%b' "$(sed -n -E 's/.*"message": *"(.*)"[,}].*/\1/p' "$run_dir/exit.json" | sed 's/\\"/"/g')"
}

# Sets verdict (again or over), code, failures, and why, in words.
judge() { # SIGNALLED, empty if Slurm sent no signal
  local reason most=${SDEVID_MAX_FAILURES:-5}
  reason=$(exit_field reason)
  why=${reason:-no exit.json was written} verdict=again code=1
  case ${reason:-${1:+preempted}} in
    done | stopped) verdict=over code=0 ;;
    preempted) failures=0 ;;
    *)
      failures=$((failures + 1))
      if [ "$(exit_field retry)" = false ]; then
        verdict=over why+="; trying again would not help: $(exit_message)"
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
    failures=$(recall failures) code=$(recall code) verdict=$(recall verdict)
    case $verdict in
      over) echo "the run is over already: $run_dir/exit.json" ;;
      running | cut)
        began=$(recall began)
        if [ "$verdict" = cut ]; then judge signalled; else judge ""; fi
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
