# The steps of the end-to-end run; sourced by e2e, which says where.
# shellcheck shell=bash disable=SC2034,SC2153,SC2154

FAILED=0

# ---- the table

heading() {
    row "$(date -u +'%F %T'), $(git -C "$ROOT" rev-parse --short HEAD)" seconds ok seen
}
row() { # row <step> <seconds> <ok> <what was seen>
    printf '%-66s %7s  %-7s %s\n' "$@" | tee -a "$OUT/table.txt"
}
# What a step adds to its line.
note() { printf '%s' "$*" >"$WORK/note"; }

# Runs a function, writes its line, and goes on: a later step may still say something.
step() { # step <what> <function> [<argument>…]
    local what=$1 began=${EPOCHREALTIME/./} code took
    shift
    : >"$WORK/note"
    printf '\n==== %s\n' "$what" >>"$OUT/log.txt"
    set +e
    (set -e; "$@") >"$WORK/said" 2>&1
    code=$?
    set -e
    cat "$WORK/said" >>"$OUT/log.txt"
    took=$(((${EPOCHREALTIME/./} - began) / 100000))
    if ((code == 0)); then
        row "$what" "$((took / 10)).$((took % 10))" yes "$(<"$WORK/note")"
        return
    fi
    FAILED=$((FAILED + 1))
    row "$what" "$((took / 10)).$((took % 10))" FAILED "$(<"$WORK/note") $(tail -n 2 "$WORK/said" | tr '\n' ' ')"
    state >>"$OUT/log.txt" 2>&1 || true
}
# Where nothing that comes after could say anything.
must() {
    local before=$FAILED
    step "$@"
    ((FAILED == before)) || die "it ends here; see $OUT/log.txt"
}

# For the log, after a failure.
state() {
    kubectl get nodes,pods -A -o wide
    k get lum,deployment,statefulset,hpa,pdb,pvc -o wide
    k get events --sort-by=.lastTimestamp | tail -n 40
    k logs -l app.kubernetes.io/name=luminate --tail=40 --prefix
    kubectl --namespace "$SYSTEM" logs -l app.kubernetes.io/name=luminate-operator --tail=40 --prefix
}

# Repeats a command until it succeeds.
eventually() { # eventually <seconds> <what> <command>…
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >"$WORK/last" 2>&1; do
        ((SECONDS < end)) || { echo "not in time: $what: $(tail -n 3 "$WORK/last")"; return 1; }
        sleep 0.5
    done
}

# ---- what there is in the cluster

apply() { # apply <label's value>: the resources of that label
    render "$HERE/testdata/e2e/luminates.yaml" | k apply -l "e2e=$1" -f -
}
change() { k patch lum "$1" --type=merge -p "$2"; } # change <name> <patch>
# Everything of this generation is there and serves.
settled() { # settled <name>
    k wait "lum/$1" --for=condition=Ready --timeout="${PATIENCE}s"
    k wait "lum/$1" --for=condition=Progressing=False --timeout="${PATIENCE}s"
}
condition() { # condition <name> <type>: status reason: message
    k get lum "$1" -o json | jq -r --arg type "$2" '.status.conditions[] | select(.type == $type) | "\(.status) \(.reason): \(.message)"'
}
says() { condition "$1" "$2" | grep -E "$3"; } # says <name> <condition> <pattern>
workers() { k get pod -l "app.kubernetes.io/name=luminate,app.kubernetes.io/instance=$1" "${@:2}"; }
identities() { workers "$1" -o jsonpath='{range .items[*]}{.metadata.uid}{"\n"}{end}' | sort; }
# Seconds from a container's start to its readiness, as kubelet saw them: whole ones.
start_to_ready() { # start_to_ready <namespace> <selector>
    kubectl --namespace "$1" get pod -l "$2" -o json | jq -r '[.items[] | select(.status.containerStatuses[0].state.running)
        | (.status.conditions[] | select(.type == "Ready").lastTransitionTime | fromdate)
        - (.status.containerStatuses[0].state.running.startedAt | fromdate) | tostring] | join(", ")'
}
token() { # token <pod or deployment>
    k exec "$1" -- luminate-worker --config /etc/luminate/config.yaml token --tenant e2e --scopes read,write --ttl 6h
}

# ---- load

start_load() { # start_load <pod> <resource> <token> [<option>…]
    k run "$1" --image="$REPOSITORY/e2e-load:$VERSION" --restart=Never --env="LUMINATE_TOKEN=$3" \
        --overrides='{"spec":{"terminationGracePeriodSeconds":0,"enableServiceLinks":false}}' \
        -- --url "http://$2.$NAMESPACE.svc:8080" --run "$1" "${@:4}"
    k wait "pod/$1" --for=condition=Ready --timeout="${PATIENCE}s"
}
page() { k get --raw "/api/v1/namespaces/$NAMESPACE/pods/$1:8090/proxy/$2"; } # page <pod> <name>
# Every acknowledged sample is in the store, and none failed.
all_found() { # all_found <page>
    note "$(jq -r '"\(.sent) writes and \(.asked) queries sent, \(.failed + .questionsFailed) failed; \(.acked) samples acked, \(.found) found"' <<<"$1")"
    echo "$1"
    jq -e '.failed == 0 and .questionsFailed == 0 and .sent > 0 and .acked == .found' <<<"$1" >/dev/null
}
# Runs a command while the load goes on: no request may fail until all is settled again.
through() { # through <command>…
    local before after
    before=$(page steady counters)
    "$@"
    settled prod
    # Connections that were drained are seen by their clients only now.
    sleep 5
    after=$(page steady counters)
    echo "$after"
    note "$(jq -nr --argjson a "$before" --argjson b "$after" \
        '"\($b.sent - $a.sent + $b.asked - $a.asked) sent, \($b.failed - $a.failed + $b.questionsFailed - $a.questionsFailed) failed; "')$(cat "$WORK/more" 2>/dev/null || true)"
    rm -f "$WORK/more"
    jq -ne --argjson a "$before" --argjson b "$after" '$b.failed == $a.failed and $b.questionsFailed == $a.questionsFailed and $b.sent > $a.sent + 10' >/dev/null
}
more() { printf '%s' "$*" >"$WORK/more"; }

# ---- the steps

schema_refuses() {
    local value said seen=''
    for value in replicas=zero replcas=2 operator.logLevel=loud operator.concurrency=0; do
        if said=$(helm install bad "$CHART" --dry-run=client --set "$value" 2>&1); then
            echo "$value was taken"
            return 1
        fi
        echo "$said"
        grep -q "${value%%=*}" <<<"${said//\//.}" || { echo "$value isn't named"; return 1; }
        seen+="${value} "
    done
    note "refused, each by its name: $seen"
}

helm_install() {
    kubectl create namespace "$NAMESPACE"
    kubectl create namespace "$OTHER"
    helm install luminate "$CHART" --create-namespace --wait --timeout "${PATIENCE}s" \
        --set image.repository="$REPOSITORY/luminate-operator" --set image.tag="$VERSION"
    kubectl wait crd/luminates.luminate.dev --for=condition=Established --timeout=60s
    note "container started to ready: $(start_to_ready "$SYSTEM" app.kubernetes.io/name=luminate-operator) s"
}
chart_test() { helm test luminate --timeout "${PATIENCE}s" --logs; }

rocksdb_ready() {
    apply rocksdb
    settled small
    note "container started to ready: $(start_to_ready "$NAMESPACE" app.kubernetes.io/instance=small) s"
}
writes_and_queries() {
    start_load first small "$(token small-0)"
    sleep 10
    all_found "$(page first stop)"
}
survives_its_pod() {
    k delete pod small-0 --timeout="${PATIENCE}s"
    settled small
    all_found "$(page first found)"
}
grows() {
    local class
    class=$(k get pvc data-small-0 -o jsonpath='{.spec.storageClassName}')
    change small '{"spec":{"rocksdb":{"storage":"2Gi"}}}'
    if [[ $(kubectl get storageclass "$class" -o jsonpath='{.allowVolumeExpansion}') == true ]]; then
        eventually "$PATIENCE" 'the claim has grown' \
            k wait pvc/data-small-0 --for=jsonpath='{.status.capacity.storage}'=2Gi --timeout=1s
        note "class $class: grown to 2Gi"
    else
        eventually 120 'the condition says so' says small Degraded '^True VolumeCannotGrow'
        note "class $class can't: Degraded $(condition small Degraded)"
    fi
    says small Ready ^True
}

clickhouse_ready() {
    render "$HERE/testdata/e2e/clickhouse.yaml" | k apply -f -
    k rollout status deployment/clickhouse --timeout="${PATIENCE}s"
}
three_workers() {
    apply clickhouse
    settled prod
    [[ $(workers prod -o name | wc -l) == 3 ]]
    note "container started to ready: $(start_to_ready "$NAMESPACE" app.kubernetes.io/instance=prod) s; on $(workers prod -o json | jq -r '[.items[].spec.nodeName] | unique | join(", ")')"
}
# Simulated nodes run no container: it is the scheduler that is looked at.
spread_over_nodes() {
    local nodes
    apply spread
    eventually "$PATIENCE" 'three pods ready' three_ready spread
    nodes=$(workers spread -o jsonpath='{range .items[*]}{.spec.nodeName}{"\n"}{end}' | sort -u)
    note "$(tr '\n' ' ' <<<"$nodes")"
    [[ $(wc -l <<<"$nodes") == 3 ]]
    kubectl drain "$(head -n 1 <<<"$nodes")" --ignore-daemonsets --delete-emptydir-data --force --timeout="${PATIENCE}s"
    eventually "$PATIENCE" 'three pods ready elsewhere' three_ready spread
    note "$(tr '\n' ' ' <<<"$nodes")and, one of them drained, $(workers spread -o json | jq -r '[.items[].spec.nodeName] | unique | join(" ")')"
    kubectl uncordon "$(head -n 1 <<<"$nodes")"
    k delete lum spread
}
three_ready() { [[ $(k get deployment "$1" -o jsonpath='{.status.readyReplicas}') == 3 && $(workers "$1" -o name | wc -l) == 3 ]]; }

undisturbed() { sleep 20; }
pod_killed() {
    local pod
    pod=$(workers prod -o name | head -n 1)
    k delete "$pod" --timeout="${PATIENCE}s"
}
config_changed() {
    identities prod >"$WORK/old"
    change prod '{"spec":{"limits":{"maxMetricsPerTenant":2000}}}'
    all_new
}
tag_changed() {
    identities prod >"$WORK/old"
    change prod "{\"spec\":{\"image\":{\"tag\":\"$VERSION-next\"}}}"
    all_new
}
# No pod that was there still is.
all_new() {
    eventually "$PATIENCE" 'every pod is new' none_is_old
    more "every pod replaced"
}
none_is_old() { [[ -z $(comm -12 "$WORK/old" <(identities prod)) ]]; }
operator_upgraded() {
    identities prod >"$WORK/old"
    helm upgrade luminate "$CHART" --reuse-values --set image.tag="$VERSION-next" --set "watchNamespaces={$NAMESPACE}" \
        --wait --timeout "${PATIENCE}s"
    sleep 10
    diff "$WORK/old" <(identities prod)
    more "no worker replaced"
}
# On one real node nothing can move before another takes it: the node refuses new pods, one worker leaves, the
# budget keeps the others; once there is room again the drain goes on to its end.
node_drained() {
    local node alone drain
    identities prod >"$WORK/old"
    node=$(workers prod -o jsonpath='{.items[0].spec.nodeName}')
    alone=$(kubectl get nodes -l '!type' -o name | wc -l)
    kubectl drain "$node" --pod-selector=app.kubernetes.io/instance=prod --ignore-daemonsets --delete-emptydir-data \
        --timeout="${PATIENCE}s" >"$WORK/drain" 2>&1 &
    drain=$!
    if ((alone == 1)); then
        eventually "$PATIENCE" 'the budget keeps the others' grep 'disruption budget' "$WORK/drain"
        k get deployment prod
        sleep 20
        (($(k get deployment prod -o jsonpath='{.status.readyReplicas}') >= 2))
        kubectl uncordon "$node"
        more "the budget refused while no node had room; then every pod moved"
    fi
    wait "$drain"
    cat "$WORK/drain"
    kubectl uncordon "$node"
    eventually "$PATIENCE" 'no evicted pod is left' none_is_old
}

scales_out() {
    eventually "$PATIENCE" 'three workers before' scaled_in
    start_load press prod "$(token deployment/prod)" --writers 32 --every 1 --samples 2000 --ask-every 0
    eventually "$PATIENCE" 'more than three workers ready' scaled_out
    more "$(<"$WORK/scaled")"
}
scaled_out() {
    local hpa
    hpa=$(k get hpa prod -o json)
    jq -e '.status.desiredReplicas > 3' <<<"$hpa" && (($(k get deployment prod -o jsonpath='{.status.readyReplicas}') > 3)) &&
        jq -r '"\(.status.currentMetrics[] | select(.resource.name == "cpu") | .resource.current.averageUtilization) % CPU of 70; \(.status.desiredReplicas) workers"' \
            <<<"$hpa" >"$WORK/scaled"
}
load_ends() {
    local found
    found=$(page press stop)
    k delete pod press --wait=false
    all_found "$found"
}
scales_in() {
    eventually 1800 'three workers' scaled_in
    settled prod
    note "after five minutes of less load, one a minute"
}
scaled_in() { [[ $(k get deployment prod -o jsonpath='{.spec.replicas}') == 3 && $(workers prod -o name | wc -l) == 3 ]]; }

# ---- bad input

# What the next upgrade would say.
notes() { helm upgrade luminate "$CHART" --reuse-values --dry-run=server; }

no_image() {
    apply bad
    eventually "$PATIENCE" 'it is said' says no-image Ready '^False'
    eventually "$PATIENCE" 'kubelet says why' pod_waits no-image 'ImagePullBackOff|ErrImagePull|ErrImageNeverPull'
    note "get lum: $(shown no-image); Ready $(condition no-image Ready)"
    says no-image Ready describe
}
pod_waits() { workers "$1" -o jsonpath='{.items[*].status.containerStatuses[*].state.waiting.reason}' | grep -E "$2"; }
shown() { k get lum "$1" -o wide --no-headers | tr -s ' '; }

wrong_password() {
    local pod health
    eventually "$PATIENCE" 'a worker runs' wrong_is_running
    pod=$(workers wrong-password -o jsonpath='{.items[0].metadata.name}')
    eventually "$PATIENCE" 'the worker says so' health_says "$pod" password
    health=$(k get --raw "/api/v1/namespaces/$NAMESPACE/pods/$pod:8080/proxy/api/v1/health" 2>&1 || true)
    note "get lum: $(shown wrong-password); Ready $(condition wrong-password Ready); kubectl logs: $(k logs "$pod" | jq -r 'select(.error).error' | head -n 1)"
    echo "$health"
    says wrong-password Ready ^False
}
wrong_is_running() { workers wrong-password -o jsonpath='{.items[*].status.containerStatuses[*].state.running.startedAt}' | grep .; }
health_says() { k logs "$1" | grep -i "$2"; }

no_default_class() {
    local class
    class=$(kubectl get storageclass -o json | jq -r '.items[] | select(.metadata.annotations["storageclass.kubernetes.io/is-default-class"] == "true").metadata.name')
    kubectl annotate storageclass "$class" storageclass.kubernetes.io/is-default-class-
    apply no-class
    eventually "$PATIENCE" 'the claim says why' claim_waits
    notes | grep 'no default storage class'
    note "get lum: $(shown no-class); Ready $(condition no-class Ready); claim: $(claim_waits | tail -n 1); NOTES: $(notes | grep 'no default storage class')"
    kubectl annotate storageclass "$class" storageclass.kubernetes.io/is-default-class=true
    # The claim takes the class as soon as there is one again.
    settled no-class
    k delete lum no-class
}
claim_waits() { k get events --field-selector involvedObject.name=data-no-class-0 -o jsonpath='{range .items[*]}{.message}{"\n"}{end}' | grep 'no storage class'; }

unwatched() {
    render "$HERE/testdata/e2e/luminates.yaml" | kubectl --namespace "$OTHER" apply -l e2e=rocksdb -f -
    sleep 15
    [[ -z $(kubectl --namespace "$OTHER" get lum small -o jsonpath='{.status}') ]]
    notes | grep "doesn't serve: $OTHER/small"
    note "no condition, no worker; NOTES: $(notes | grep "doesn't serve: ")"
    kubectl --namespace "$OTHER" delete lum small
}

refused_by_the_api() {
    local patch said
    for patch in '{"spec":{"clickhouse":{"autoscaling":{"minReplicas":9}}}}' '{"spec":{"backend":"RocksDB"}}' \
        '{"spec":{"clickhouse":{"endpoints":["clickhouse:8123"]}}}'; do
        if said=$(change prod "$patch" 2>&1); then
            echo "$patch was taken"
            return 1
        fi
        echo "$said"
    done
    said=$(change small '{"spec":{"rocksdb":{"storage":"1Gi"}}}' 2>&1) && return 1
    note "$(sed -E 's/^.*is invalid: //' <<<"$said" | head -n 1)"
}

# ---- the end

# One more short name: what a version to come might add.
definition_changed() {
    local uid
    cp -r "$CHART" "$WORK/chart"
    sed -i -E 's/^( *)- lum$/&\n\1- lumi/' "$WORK/chart/files/crd.yaml"
    cmp "$CHART/files/crd.yaml" "$WORK/chart/files/crd.yaml" && return 1
    identities prod >"$WORK/old"
    uid=$(k get lum prod -o jsonpath='{.metadata.uid}')
    helm upgrade luminate "$WORK/chart" --reuse-values --wait --timeout "${PATIENCE}s"
    eventually 120 'the new short name works' k get lumi prod
    [[ $(k get lum prod -o jsonpath='{.metadata.uid}') == "$uid" ]]
    settled prod
    diff "$WORK/old" <(identities prod)
    note "kubectl get lumi works, resources and workers are the same"
}
# Failures were judged in their steps.
everything_acked_is_there() {
    local page
    page=$(page steady stop)
    all_found "$page" || jq -e '.acked > 0 and .acked == .found' <<<"$page"
}

uninstalled() {
    identities prod >"$WORK/old"
    helm uninstall luminate --wait --timeout "${PATIENCE}s"
    kubectl get crd luminates.luminate.dev
    k get lum prod small
    sleep 10
    diff "$WORK/old" <(identities prod)
    [[ -z $(left_of_release) ]] || { left_of_release; return 1; }
    note "the definition, the resources and their workers stay; nothing else of the release"
}
# Whatever carries the release's label, but for the definition.
left_of_release() {
    local kinds
    kinds=$(kubectl api-resources --verbs=list -o name | grep -v '^events\|metrics.k8s.io' | paste -sd,)
    kubectl get "$kinds" -A -l app.kubernetes.io/managed-by=Helm -o name 2>/dev/null | grep -v customresourcedefinition
}
deleted() {
    local left
    k delete lum --all --timeout="${PATIENCE}s"
    eventually "$PATIENCE" 'no worker is left' no_worker
    eventually "$PATIENCE" 'no object of theirs is left' only_data
    left=$(k get secret,pvc -l app.kubernetes.io/managed-by=luminate-operator -o name | paste -sd' ')
    note "left: ${left:-nothing}"
}
no_worker() { [[ -z $(k get pod -l app.kubernetes.io/name=luminate -o name) ]]; }
only_data() {
    [[ -z $(k get deployment,statefulset,hpa,pdb,service,configmap,serviceaccount,networkpolicy,replicaset \
        -l app.kubernetes.io/managed-by=luminate-operator -o name) ]]
}
cleared() {
    kubectl delete namespace "$NAMESPACE" "$OTHER" "$SYSTEM" --timeout="${PATIENCE}s"
    kubectl delete crd luminates.luminate.dev
    eventually "$PATIENCE" 'no volume is left' no_volume
}
no_volume() { [[ -z $(kubectl get pv -o json | jq -r ".items[] | select(.spec.claimRef.namespace == \"$NAMESPACE\").metadata.name") ]]; }

every_step() {
    step 'values that the schema refuses' schema_refuses
    must 'helm install: two operators ready' helm_install
    step 'helm test' chart_test
    must 'RocksDB: one worker ready' rocksdb_ready
    step 'written and queried through the Service with a token' writes_and_queries
    step 'the pod was deleted, the data is there' survives_its_pod
    step 'the volume grows, or the condition says why not' grows
    must 'ClickHouse is ready' clickhouse_ready
    must 'ClickHouse: three workers ready' three_workers
    [[ -z $(kubectl get nodes -l type=kwok -o name) ]] || step 'spread over three (simulated) nodes' spread_over_nodes

    must 'steady load from inside the cluster' start_load steady prod "$(token deployment/prod)"
    step '… undisturbed' through undisturbed
    step '… while a pod is killed' through pod_killed
    step '… while the configuration changes' through config_changed
    step '… while the image tag changes' through tag_changed
    step '… while the operator is upgraded, and serves one namespace from now on' through operator_upgraded
    step '… while the node is drained' through node_drained
    step '… while the autoscaler goes out, above 70 % CPU' through scales_out
    step 'the pressing load ends' load_ends

    step 'bad input: refused by the API server' refused_by_the_api
    step "bad input: an image that can't be pulled" no_image
    step 'bad input: ClickHouse with the wrong password' wrong_password
    k delete lum -l e2e=bad --wait=false >>"$OUT/log.txt" 2>&1 || true
    ! $OWN || step 'bad input: no default storage class' no_default_class
    step "bad input: a namespace that isn't watched" unwatched

    step '… while the autoscaler comes back in' through scales_in
    step '… while helm upgrade changes the definition' through definition_changed
    step 'every acknowledged sample is there' everything_acked_is_there
    step 'helm uninstall' uninstalled
    step 'the resources are deleted' deleted
    step 'namespaces and definition are deleted' cleared
}
