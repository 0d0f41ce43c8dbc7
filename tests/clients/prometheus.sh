# A Prometheus that scrapes the worker and writes to it; sourced by the agents that are one.
#
# Before they source this they set PROGRAM, and may set REMOTE (lines of the remote write), JOB (lines of the scrape)
# and FLAGS.
# shellcheck shell=bash disable=SC2034

start() {
    command -v "$PROGRAM" >/dev/null || die "$PROGRAM isn't there: \`make clients\` installs it"
    PROMETHEUS_ADDRESS=127.0.0.1:$(free_port)
    configure "$WORKER_ADDRESS"
    spawn prometheus "$PROGRAM" --config.file="$FOLDER/prometheus.yml" --storage.tsdb.path="$FOLDER/tsdb" \
        --web.listen-address="$PROMETHEUS_ADDRESS" ${FLAGS:+"$FLAGS"}
    PROMETHEUS=$LAST
    await 30 prometheus curl -fsS "http://$PROMETHEUS_ADDRESS/-/ready"
}

configure() { # configure [<target>]
    local targets=
    [[ $# -eq 0 ]] || targets="'$1', '$PROMETHEUS_ADDRESS'"
    cat >"$FOLDER/prometheus.yml" <<END
global: {scrape_interval: 1s, scrape_timeout: 900ms}
scrape_configs:
  - job_name: all
    static_configs: [{targets: [$targets]}]
${JOB-}
remote_write:
  - url: http://$WORKER_ADDRESS/api/v1/prom/write
    queue_config: {batch_send_deadline: 500ms}
${REMOTE-}
END
}

remote() { figure "$PROMETHEUS_ADDRESS" "prometheus_remote_storage_$1"; }

# Without targets nothing more is scraped. The markers of what is gone come a few scrapes later, and are sent too.
finish() {
    local what failed
    configure
    kill -HUP "$PROMETHEUS"
    await 60 prometheus is_quiet
    SENT=$(remote samples_total)
    for what in samples_failed_total samples_retried_total samples_dropped_total; do
        failed=$(remote "$what")
        if ((failed)); then
            grep -i 'level=\(error\|warn\)' "$FOLDER/prometheus.log" | tail -n 5 >&2 || true
            die "prometheus_remote_storage_$what is $failed"
        fi
    done
}
is_quiet() {
    local before
    before=$(remote samples_total)
    sleep 6
    (($(remote samples_pending) == 0 && $(remote samples_total) == before))
}
