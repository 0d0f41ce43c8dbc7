# What the scripts here share; sourced, never run.
#
# An agent is a file in agents/ with two functions and a few variables:
#   start     starts it with `spawn`, writing to $WORKER_ADDRESS; its files go to $FOLDER
#   finish    lets it send what it has, and sets SENT to the number of samples that it says it sent
# NOTE is said with the result. Whatever is wrong ends the run with `die`.
# shellcheck shell=bash disable=SC2034

set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Where `tests/cluster/build agents` puts what is built of Go modules.
BUILT=${XDG_CACHE_HOME:-$HOME/.cache}/luminate/cluster/bin
SECONDS_EACH=${SECONDS_EACH:-15}
# Fewer samples than this are no test.
AT_LEAST=1000

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
usage() { sed -nE '2,/^[^#]/s/^# ?//p' "$0" >&2; exit 2; }

# Processes of this run, and the names of their logs.
PIDS=()
spawn() { # spawn <name> <command>…
    local name=$1
    shift
    "$@" >>"$FOLDER/$name.log" 2>&1 &
    PIDS+=($!)
    LAST=$!
}
end_all() {
    local pid
    for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${PIDS[@]}"; do wait "$pid" 2>/dev/null || true; done
}

# Repeats a command until it succeeds; shows a log if it never does.
await() { # await <seconds> <name> <command>…
    local end=$((SECONDS + $1)) name=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= end)); then
            tail -n 20 "$FOLDER/$name.log" >&2
            die "$name isn't as it should be after a while: $*"
        fi
        sleep 0.2
    done
}

free_port() {
    local port
    for port in $(shuf -n 50 -i 20000-32000); do
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            printf '%s\n' "$port"
            return
        fi
    done
    die "there is no free port"
}

start_worker() {
    local port
    port=$(free_port)
    WORKER_ADDRESS=127.0.0.1:$port
    spawn worker env LUMINATE_SERVER_HOST=127.0.0.1 LUMINATE_SERVER_PORT="$port" LUMINATE_SERVER_DRAIN_DELAY=0s \
        LUMINATE_STORAGE_ROCKSDB_PATH="$FOLDER/data" "$WORKER"
    await 60 worker curl -fsS "http://$WORKER_ADDRESS/api/v1/health/ready"
}

# The sum of a figure over those of its series that have these labels, as a whole number; 0 where there is none.
figure() { # figure <address> <name> [<label="value">]
    curl -fsS "http://$1/metrics" | awk -v name="$2" -v label="${3-}" '
        index($0, name) == 1 && substr($0, length(name) + 1, 1) ~ /[{ ]/ && (label == "" || index($0, label)) {
            sum += $NF
        }
        END { printf "%d\n", sum }'
}

# How many samples the worker holds of all metrics.
stored() {
    local metric count sum=0
    while read -r metric; do
        count=$(curl -fsS "http://$WORKER_ADDRESS/api/v1/query" -H 'Content-Type: application/json' -d '{
            "queryType": "aggregate", "aggregation": "count", "timeRange": {"relative": "1h"},
            "metricName": "'"$metric"'"}' | jq '[.results[].value] | add // 0')
        sum=$((sum + count))
    done < <(metrics)
    printf '%s\n' "$sum"
}
metrics() {
    local page cursor=
    while page=$(curl -fsS "http://$WORKER_ADDRESS/api/v1/metrics?limit=1000${cursor:+&cursor=$cursor}"); do
        jq -r '.metrics[]' <<<"$page"
        cursor=$(jq -r '.nextCursor // empty' <<<"$page")
        [[ -n $cursor ]] || return 0
    done
}
