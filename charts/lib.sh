# What the scripts here share: where the programs are, and the rendered variants of the chart.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH=${XDG_CACHE_HOME:-$HOME/.cache}/luminate/cluster/bin:$PATH
# Nothing of a person's own settings.
SCRATCH=$(mktemp -d)
export HELM_CONFIG_HOME=$SCRATCH/helm HELM_CACHE_HOME=$SCRATCH/helm HELM_DATA_HOME=$SCRATCH/helm
trap 'rm -rf "$SCRATCH"' EXIT

CHART=charts/luminate
# The release and its namespace.
R=luminate
NS=luminate-system
step() { printf '\n== %s\n' "$1"; }
die() { echo "$*" >&2; exit 1; }
