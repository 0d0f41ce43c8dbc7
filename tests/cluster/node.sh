# What a real node adds to the control plane: network, containers, DNS, storage. Sourced by up.
# shellcheck shell=bash disable=SC2034,SC2153,SC2154

# Kernel settings that kubelet, kube-proxy and this tool change; down puts them back.
SYSCTLS=(
    net.ipv4.ip_forward net.bridge.bridge-nf-call-iptables net.bridge.bridge-nf-call-ip6tables
    net.ipv4.conf.all.route_localnet net.netfilter.nf_conntrack_max
    vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops
    kernel.keys.root_maxkeys kernel.keys.root_maxbytes
)

# Saves kernel settings, then makes the bridge and its routes.
prepare_network() {
    local setting
    modprobe br_netfilter 2>/dev/null || true
    for setting in "${SYSCTLS[@]}"; do sysctl -e "$setting"; done >"$STATE/sysctl.saved"
    ! nft list table ip nat >/dev/null 2>&1 || touch "$STATE/nat-was-there"
    sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
    ip link add "$BRIDGE" type bridge
    ip address add "$NODE_IP/24" dev "$BRIDGE"
    ip link set "$BRIDGE" up
    ip route add "$SERVICE_CIDR" dev "$BRIDGE"
    render "$HERE/conf/nftables.conf" | nft -f -
}

start_containerd() {
    mkdir -p "$STATE/cni/conf"
    render "$HERE/conf/cni.conflist" >"$STATE/cni/conf/10-luminate.conflist"
    render "$HERE/conf/containerd.toml" >"$STATE/containerd.toml"
    PATH=$BIN:$PATH start containerd "$BIN/containerd" --config "$STATE/containerd.toml"
    wait_for 60 containerd ctr version
    ctr images import --local "$IMAGES/pause.tar" >/dev/null
    ctr images import --local "$IMAGES/busybox.tar" >/dev/null
}

start_node() {
    local file
    for file in kubelet.yaml kube-proxy.yaml Corefile; do render "$HERE/conf/$file" >"$STATE/$file"; done
    mkdir -p "$STATE/volumes"
    start kubelet "$BIN/kubelet" --config="$STATE/kubelet.yaml" --kubeconfig="$STATE/kubelet.kubeconfig" \
        --root-dir="$STATE/kubelet" --hostname-override="$NODE_NAME" --node-ip="$NODE_IP"
    start kube-proxy "$BIN/kube-proxy" --config="$STATE/kube-proxy.yaml"
    start coredns "$BIN/coredns" -conf "$STATE/Corefile"
    render "$HERE/conf/dns.yaml" | kubectl apply -f - >/dev/null
    render "$HERE/conf/storage.yaml" | kubectl apply -f - >/dev/null
    printf '{"nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": ["%s"]}]}\n' "$STATE/volumes" >"$STATE/volumes.json"
    start local-path-provisioner "$BIN/local-path-provisioner" start --config "$STATE/volumes.json" \
        --kubeconfig "$STATE/kubeconfig" --namespace local-path-storage --helper-image "$BUSYBOX_IMAGE"
}
