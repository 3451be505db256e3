# What run_all.sh and run_clips.sh share: parts with logs and marks, in the background. The script that reads this sets
# self, RUN, PYTHON, DATA and STATE, defines run_all, and ends with `run_command "$@"`.
export PYTHONUNBUFFERED=1
COMMIT=${COMMIT:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}
mkdir -p "$RUN/logs"

# part NAME SECONDS COMMAND...: runs a part once, with a log; after a failure once more.
part() {
  local name=$1 limit=$2 code=1 try
  shift 2
  [ -e "$RUN/logs/$name.done" ] && return 0
  for try in 1 2; do
    echo "== $(date -u +%T) $*" >> "$RUN/logs/$name.log"
    timeout -k 10 "$limit" "$@" >> "$RUN/logs/$name.log" 2>&1
    code=$?
    echo "== $(date -u +%T) exit status $code" >> "$RUN/logs/$name.log"
    [ $code = 0 ] && touch "$RUN/logs/$name.done" && return 0
  done
  return $code
}

seconds() { awk "BEGIN { print int($1 * 60 + 120) }"; }

script() { echo "$PYTHON training/$1 --data $DATA --state $STATE"; }

running() { [ -e "$RUN/pid" ] && kill -0 "$(cat "$RUN/pid")" 2>/dev/null; }

# run_command start|status|wait [SECONDS]|stop: of the script that has run_all and is $self.
run_command() {
  case "${1:-}" in
    start)
      running && { echo "already running: $(cat "$RUN/pid")"; exit 1; }
      rm -f "$RUN/ended"
      setsid "$self" run < /dev/null > "$RUN/logs/run.log" 2>&1 &
      echo $! > "$RUN/pid"
      echo "$RUN/logs" ;;
    run)
      echo $$ > "$RUN/pid"
      run_all
      echo "exit status $?" | tee "$RUN/ended" ;;
    status)
      for log in "$RUN"/logs/*.log; do
        echo "-- $(basename "$log" .log) $([ -e "${log%.log}.done" ] && echo done)"
        tail -n 2 "$log"
      done
      if running; then echo "running"; else cat "$RUN/ended" 2>/dev/null || echo "stopped"; fi ;;
    wait)
      end=$(($(date +%s) + ${2:-500}))
      while running; do
        [ "$(date +%s)" -ge $end ] && exit 3
        sleep 2
      done
      cat "$RUN/ended" 2>/dev/null || exit 1 ;;
    stop)
      running && kill -- "-$(cat "$RUN/pid")" ;;
    *)
      sed -n '2,/^set /{/^#/p}' "$self"; exit 2 ;;
  esac
}
