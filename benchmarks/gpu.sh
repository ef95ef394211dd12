#!/usr/bin/env bash
# All that needs a GPU, in order of worth: its tests, the benchmarks, then what trains long. For a machine without a network that
# has PyTorch and Transformers. Each part leaves its files as it ends, so that whatever stops the rest loses nothing.
#
#   bash benchmarks/gpu.sh CARRIED RESULTS [SECONDS] [PYTHON]
#
# CARRIED/wheels: this package and what the machine lacks; CARRIED/data: rows, named as in the recipes. benchmarks/README.md.
# LONG: what trains long, as NAME=RECIPE; BACKBONE: another model than the embedded one; CARD: what train_step.py is told.
set -u
carried=$(realpath "$1") results=$(realpath -m "$2") seconds=${3:-600} python=${4:-python3}
cd "$(dirname "$0")/.."
ends=$((SECONDS + seconds))
left() { echo $((ends - SECONDS > 0 ? ends - SECONDS : 0)); }
mkdir -p "$results"
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
if [ -d "$carried/wheels" ]; then
    $python -m pip install -q --no-index --no-deps --no-compile --target "$results/.site" "$carried"/wheels/*.whl || exit
    export PYTHONPATH=$PWD/src:$results/.site${PYTHONPATH:+:$PYTHONPATH}
fi

# part NAME SECONDS COMMAND...: at most so long, and no longer than all may take; its output into RESULTS/NAME.log
part() {
    local name=$1 most=$2
    shift 2
    [ "$(left)" -lt 5 ] && { echo "$name: no time is left"; return; }
    local began=$SECONDS
    timeout --signal=INT --kill-after=20 "$((most < $(left) ? most : $(left)))" "$@" >"$results/$name.log" 2>&1
    echo "$name: ended with $? after $((SECONDS - began)) s"
}

# Recipes read their rows beside the project.
rows= && [ -d "$carried/data" ] && rows="--data $carried/data"
[ -z "$rows" ] || [ -e ../shared/data ] || { mkdir -p ../shared && ln -s "$carried/data" ../shared/data; }
[ -n "${BACKBONE:-}" ] || $python -c 'from mptune.model.embedded import build_embedded; build_embedded()'
part tests 90 $python -m pytest -q -p no:cacheprovider tests/test_on_gpu.py
for name in train_step:${CARD---card} distillation_step: scoring:--quick adaptation:--steps=20; do
    flag=${name#*:} name=${name%%:*}
    part "$name" 100 $python benchmarks/$name.py $flag $rows ${BACKBONE:+--backbone "$BACKBONE"} --out "$results/$name.json"
done

# What trains long goes on where a folder of results stands already, and several at once: one alone leaves most of a card idle.
trained() {
    local name=$1 recipe=$2
    shift 2
    mkdir -p "runs/$name" && cp -r --update=none "results/$name/." "runs/$name/" 2>/dev/null
    part "$name" 600 $python -m mptune bench "$recipe" "$@"
    tar -czf "$results/$name.tar.gz" -C runs "$name"
}
for line in ${LONG-general=recipes/general/general.yaml}; do
    trained "${line%%=*}" "${line#*=}" &
done
wait
tail -n 1 "$results/tests.log"
