# Prometheus 3 with remote write 2.0, and with the native histograms of its own page: they are refused, and nothing else.
# shellcheck shell=bash disable=SC2034
PROGRAM=$BUILT/prometheus
JOB='    scrape_native_histograms: true'
REMOTE='    protobuf_message: io.prometheus.write.v2.Request
    send_native_histograms: true'
source "$HERE/prometheus.sh"

eval "of_samples_$(declare -f finish)"
finish() {
    local sent failed
    of_samples_finish
    sent=$(remote histograms_total)
    failed=$(remote histograms_failed_total)
    ((sent > 0 && sent == failed)) || die "$sent native histograms sent, and $failed refused"
    NOTE="$sent native histograms refused"
}
