# What the scripts here share; sourced, never run.
# shellcheck shell=bash disable=SC2034

set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/luminate/cluster
STATE=${LUMINATE_CLUSTER_STATE:-$CACHE/run}
BIN=$CACHE/bin
IMAGES=$CACHE/images

# Addresses that exist on this machine only: nothing is routed beyond the bridge.
BRIDGE=lum0
NODE_NAME=node-1
NODE_IP=10.244.0.1
POD_CIDR=10.244.0.0/24
FAKE_POD_CIDR=10.245.0.1/16
SERVICE_CIDR=10.96.0.0/16
API_SERVICE_IP=10.96.0.1
DNS_IP=10.96.0.10
PAUSE_IMAGE=localhost/pause:1
BUSYBOX_IMAGE=localhost/busybox:1

# Control planes run side by side, each with seven ports and a state folder of its own.
PORT_BASE=${LUMINATE_CLUSTER_PORT_BASE:-21600}
ETCD_PORT=$PORT_BASE
ETCD_PEER_PORT=$((PORT_BASE + 1))
API_PORT=$((PORT_BASE + 2))
CONTROLLER_MANAGER_PORT=$((PORT_BASE + 3))
SCHEDULER_PORT=$((PORT_BASE + 4))
METRICS_PORT=$((PORT_BASE + 5))
KWOK_PORT=$((PORT_BASE + 6))

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
usage() { sed -nE '2,/^[^#]/s/^# ?//p' "$0" >&2; exit 2; }

# Prints a file with its ${VARIABLES} filled in.
render() { # render <file>
    eval "cat <<RENDER_END
$(<"$1")
RENDER_END"
}

# containerd warns at every call that cgroup v1 is on its way out.
export CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1

# What kubectl and helm remember of one cluster must not be believed of the next.
export KUBECACHEDIR=$STATE/kube-cache

kubectl() { "$BIN/kubectl" --kubeconfig "$STATE/kubeconfig" "$@"; }
ctr() { "$BIN/ctr" --address "$STATE/containerd.sock" --namespace k8s.io "$@"; }

# Repeats a command until it succeeds.
wait_for() { # wait_for <seconds> <what> <command>…
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || die "$what: not ready in time; see $STATE/log"
        all_alive
        sleep 0.1
    done
}

# Start time of a living process in clock ticks: with the pid it names one process for good.
born() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" {print $20}'; }

# True while the very process that start noted is there; sets pid.
alive() { # alive <name>
    local time
    read -r pid time <"$STATE/pid/$1" && [[ -n $time && $(born "$pid") == "$time" ]]
}

all_alive() {
    local file
    for file in "$STATE"/pid/*; do
        alive "${file##*/}" || die "${file##*/} ended: $(tail -n 3 "$STATE/log/${file##*/}.log")"
    done
}

# Runs a command in the background, with a pid file and a log. A supervised one ends with this script,
# even if that is killed.
start() { # start <name> <command>…
    local name=$1 pid with=()
    shift
    ! ${SUPERVISED:-false} || with=(setpriv --pdeathsig KILL)
    setsid "${with[@]}" "$@" >"$STATE/log/$name.log" 2>&1 </dev/null &
    pid=$!
    printf '%s %s\n' "$pid" "$(born "$pid")" >"$STATE/pid/$name"
}

# Ends a part for good: nothing that it holds is kept. Another process with its pid is left alone.
stop() { # stop <name>
    local pid
    [[ -f $STATE/pid/$1 ]] || return 0
    while alive "$1"; do
        kill -KILL "$pid" 2>/dev/null || true
        sleep 0.02
    done
    rm -f "$STATE/pid/$1"
}
