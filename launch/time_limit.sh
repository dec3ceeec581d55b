# Sourced by submit.sh and train.sh. Slurm signals a job `grace` seconds before its time limit
# (--signal in train.sh), and the trainer saves then: a limit must leave time before that.

grace=300

seconds_of() { # [days-][[hours:]minutes:]seconds; nothing for UNLIMITED
  [[ $1 =~ ^(([0-9]+)-)?(([0-9]+):)?(([0-9]+):)?([0-9]+)$ ]] || return 0
  local d=${BASH_REMATCH[2]:-0} h=${BASH_REMATCH[4]:-0} m=${BASH_REMATCH[6]:-0} s=${BASH_REMATCH[7]}
  if [ -z "${BASH_REMATCH[6]:-}" ]; then m=$h h=0; fi
  echo "$((((10#$d * 24 + 10#$h) * 60 + 10#$m) * 60 + 10#$s))"
}

# Why a time, as Slurm writes it, is too short to train in; nothing where it is not.
too_short() {
  local seconds
  seconds=$(seconds_of "$1")
  if [ -n "$seconds" ] && [ "$seconds" -le "$grace" ]; then
    echo "the time limit leaves $seconds s, but saving begins $grace s before it (--signal=B:USR2@$grace)," \
      "so nothing would be trained; submit with --time=$((grace / 60 + 10)) or more"
  fi
}
